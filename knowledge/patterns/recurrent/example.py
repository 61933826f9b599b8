"""What this pattern is for: a sequence model in which one step waits for the one before."""

import torch
from torch import nn


class Model(nn.Module):
    """Two layers of an LSTM over a batch of sequences, then a linear layer on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(256, 256, num_layers=2, batch_first=True)
        self.head = nn.Linear(256, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (batch, time, 256) to (batch, 64)."""
        output, _ = self.lstm(x)
        scores: torch.Tensor = self.head(output[:, -1])
        return scores


def get_inputs() -> list[torch.Tensor]:
    """32 sequences of 200 steps: 6.6 MB."""
    return [torch.randn(32, 200, 256)]


def get_init_inputs() -> list[object]:
    """The constructor takes nothing."""
    return []
