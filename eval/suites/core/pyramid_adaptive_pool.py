"""A feature map as means over 1, 4 and 16 cells, all in one vector of unit length."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = [F.adaptive_avg_pool2d(x, level).flatten(1) for level in self.levels]
        return F.normalize(torch.cat(pooled, dim=1), dim=1)


BATCH, CHANNELS, SIZE = 16, 384, 28


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, CHANNELS, SIZE, SIZE)]


def get_init_inputs() -> list[object]:
    return [(1, 2, 4)]
