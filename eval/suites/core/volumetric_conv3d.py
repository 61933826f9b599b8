"""The first wide layer of a net over scans of the body, whose slices are further apart."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inner, outer, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, scan: torch.Tensor) -> torch.Tensor:
        return self.conv(scan)


BATCH, INNER, OUTER, DEPTH, SIZE = 2, 24, 48, 20, 112


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, INNER, DEPTH, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER]
