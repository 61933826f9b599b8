"""A layer of volumetric segmentation: convolution, instance norm, leaky ReLU."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inner, outer, 3, padding=1)
        self.norm = nn.InstanceNorm3d(outer, affine=True)
        self.activation = nn.LeakyReLU(0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.conv(x)))


BATCH, INNER, OUTER, DEPTH, SIZE = 1, 16, 32, 32, 64


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, INNER, DEPTH, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER]
