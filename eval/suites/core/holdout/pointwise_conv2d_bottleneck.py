"""The 1x1 convolution that narrows a bottleneck."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inner, outer, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.reduce(x)


BATCH, INNER, OUTER, HEIGHT, WIDTH = 8, 320, 80, 36, 52


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, INNER, HEIGHT, WIDTH)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER]
