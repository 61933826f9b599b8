"""The last stage of a vocoder: leaky ReLU, upsampling, a weighted mean of channels, tanh."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(inner, outer, 10, stride=5, padding=3, output_padding=1)
        self.scale = nn.Parameter(torch.rand(1, outer, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(F.leaky_relu(x, 0.1))
        return torch.tanh((F.leaky_relu(x, 0.1) * self.scale).mean(dim=1))


BATCH, INNER, OUTER, FRAMES = 4, 96, 48, 2000


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, INNER, FRAMES)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER]
