"""Going up in a volumetric U-Net: transposed convolution, add the skip, group norm, ELU."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int, groups: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(inner, outer, 2, stride=2)
        self.norm = nn.GroupNorm(groups, outer)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return F.elu(self.norm(self.up(x) + skip))


BATCH, INNER, OUTER, SIZE, GROUPS = 2, 64, 32, 20, 4


def get_inputs() -> list[torch.Tensor]:
    x = torch.randn(BATCH, INNER, SIZE, SIZE, SIZE)
    return [x, torch.randn(BATCH, OUTER, 2 * SIZE, 2 * SIZE, 2 * SIZE)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER, GROUPS]
