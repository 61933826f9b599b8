"""What the pattern is timed on: a batch norm in training with the activation after it."""

import torch
from torch import nn


class Model(nn.Module):
    """Batch statistics, normalisation, activation, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X is (batch, channels, height, width)."""
        return torch.relu(self.norm(x)) + x


def get_inputs() -> list[torch.Tensor]:
    """One batch of feature maps, 13 MB."""
    return [torch.randn(16, 64, 56, 56)]


def get_init_inputs() -> list[int]:
    """The number of channels."""
    return [64]
