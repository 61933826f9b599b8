"""Gated convolution for inpainting: half of the channels open and close the others."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, 2 * outer, 3, padding=1, stride=2)
        self.norm = nn.GroupNorm(groups, outer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features, gate = self.conv(x).split(self.norm.num_channels, dim=1)
        return self.norm(torch.tanh(features) * torch.sigmoid(gate))


BATCH, INNER, OUTER, SIZE, GROUPS = 4, 48, 64, 112, 8


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, INNER, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER, GROUPS]
