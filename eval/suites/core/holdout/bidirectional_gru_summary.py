"""A summary of a heartbeat recording: a GRU in both directions, then mean and maximum over time."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, leads: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.gru = nn.GRU(leads, hidden, batch_first=True, bidirectional=True)
        self.classify = nn.Linear(4 * hidden, classes)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(signal)
        summary = torch.cat([states.mean(dim=1), states.amax(dim=1)], dim=-1)
        return self.classify(summary)


BATCH, STEPS, LEADS, HIDDEN, CLASSES = 64, 360, 12, 96, 9


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, STEPS, LEADS)]


def get_init_inputs() -> list[int]:
    return [LEADS, HIDDEN, CLASSES]
