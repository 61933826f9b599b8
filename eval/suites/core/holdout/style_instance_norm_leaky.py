"""Adaptive instance norm: normalise each map, take scale and shift from a style, leaky ReLU."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.slope = slope

    def forward(self, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        x = self.norm(x) * (1.0 + scale[:, :, None, None]) + shift[:, :, None, None]
        return F.leaky_relu(x, self.slope)


BATCH, CHANNELS, SIZE = 8, 96, 100


def get_inputs() -> list[torch.Tensor]:
    x = torch.randn(BATCH, CHANNELS, SIZE, SIZE)
    return [x, 0.2 * torch.randn(BATCH, CHANNELS), 0.2 * torch.randn(BATCH, CHANNELS)]


def get_init_inputs() -> list[object]:
    return [CHANNELS, 0.2]
