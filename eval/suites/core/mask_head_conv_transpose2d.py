"""The mask branch of a detector doubles the resolution of every region."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(inner, outer, 2, stride=2)

    def forward(self, regions: torch.Tensor) -> torch.Tensor:
        return self.deconv(regions)


REGIONS, INNER, OUTER, SIZE = 100, 192, 96, 14


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(REGIONS, INNER, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER]
