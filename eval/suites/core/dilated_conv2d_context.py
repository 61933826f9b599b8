"""One branch of a context module for segmentation: a wide view at full resolution."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int, rate: int) -> None:
        super().__init__()
        self.branch = nn.Conv2d(inner, outer, 3, padding=rate, dilation=rate, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.branch(x)


BATCH, INNER, OUTER, SIZE, RATE = 4, 96, 64, 65, 6


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, INNER, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER, RATE]
