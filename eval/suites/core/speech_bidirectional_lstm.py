"""A speech recogniser's encoder: two layers of LSTM in both directions, character scores."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, hidden: int, characters: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(features, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.scores = nn.Linear(2 * hidden, characters)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        encoded, _ = self.encoder(frames)
        return self.scores(encoded).log_softmax(dim=-1)


BATCH, FRAMES, FEATURES, HIDDEN, CHARACTERS = 16, 220, 80, 160, 33


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, FRAMES, FEATURES)]


def get_init_inputs() -> list[int]:
    return [FEATURES, HIDDEN, CHARACTERS]
