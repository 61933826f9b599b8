"""A path is predicted step by step: a GRU cell whose own answer is its next input."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, state: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.start = nn.Linear(state, hidden)
        self.cell = nn.GRUCell(state, hidden)
        self.move = nn.Linear(hidden, state)
        self.steps = steps

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.start(state))
        path = []
        for _ in range(self.steps):
            hidden = self.cell(state, hidden)
            state = state + self.move(hidden)
            path.append(state)
        return torch.stack(path, dim=1)


AGENTS, STATE, HIDDEN, STEPS = 4096, 64, 128, 12


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(AGENTS, STATE)]


def get_init_inputs() -> list[int]:
    return [STATE, HIDDEN, STEPS]
