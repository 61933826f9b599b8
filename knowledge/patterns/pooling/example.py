"""What the pattern is timed on: the stem of an image network after its convolution."""

import torch
from torch import nn


class Model(nn.Module):
    """Activation, overlapping max pooling, and a shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.shift = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X is (batch, channels, height, width)."""
        pooled: torch.Tensor = self.pool(torch.relu(x))
        return pooled + self.shift


def get_inputs() -> list[torch.Tensor]:
    """One batch of feature maps, 51 MB."""
    return [torch.randn(16, 64, 112, 112)]


def get_init_inputs() -> list[int]:
    """The number of channels."""
    return [64]
