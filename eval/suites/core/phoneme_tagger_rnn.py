"""A tagger of sounds: two layers of a plain tanh recurrence, and scores for every frame."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, hidden: int, tags: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(features, hidden, num_layers=2, batch_first=True, dropout=0.2)
        self.tags = nn.Linear(hidden, tags)
        self.eval()

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(frames)
        return self.tags(states)


BATCH, FRAMES, FEATURES, HIDDEN, TAGS = 20, 300, 60, 200, 48


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, FRAMES, FEATURES)]


def get_init_inputs() -> list[int]:
    return [FEATURES, HIDDEN, TAGS]
