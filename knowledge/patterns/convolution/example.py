"""A residual layer of an image network: convolution, GELU, scaled and added to what it got."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    """`x + scale * gelu(conv(x))` on feature maps of a few channels and many pixels."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(images, channels, height, width) to the same."""
        return x + self.scale * F.gelu(self.conv(x))


def get_inputs() -> list[torch.Tensor]:
    """One batch, 25 MB."""
    return [torch.randn(24, 16, 128, 128)]


def get_init_inputs() -> list[int | float]:
    """Channels, and the scale of the residual."""
    return [16, 0.1]
