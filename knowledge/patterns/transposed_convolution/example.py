"""A decoder's upsampling step: twice the height and width, half the channels."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Model(nn.Module):
    """A transposed convolution of stride 2, a leaky rectifier, and a scale for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1)
        self.scale = nn.Parameter(torch.rand(32, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """From (N, 64, H, W) to (N, 32, 2 H, 2 W)."""
        return functional.leaky_relu(self.up(x), 0.2) * self.scale


def get_inputs() -> list[Tensor]:
    """A batch of 16 MB."""
    return [torch.randn(16, 64, 64, 64)]


def get_init_inputs() -> list[object]:
    """None."""
    return []
