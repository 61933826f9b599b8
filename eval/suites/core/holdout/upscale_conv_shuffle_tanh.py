"""The tail of a super-resolution net: convolution, pixel shuffle, the result squashed."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 3 * factor**2, 3, padding=1)
        self.factor = factor
        self.gain = nn.Parameter(torch.ones(1, 3, 1, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        image = F.pixel_shuffle(self.conv(features), self.factor)
        return 0.5 * (torch.tanh(image * self.gain) + 1.0)


BATCH, CHANNELS, HEIGHT, WIDTH, FACTOR = 4, 64, 90, 120, 3


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, CHANNELS, HEIGHT, WIDTH)]


def get_init_inputs() -> list[int]:
    return [CHANNELS, FACTOR]
