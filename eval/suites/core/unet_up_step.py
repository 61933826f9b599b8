"""A step up in a U-Net: upsample, join with the skip, two convolutions with norm and ReLU."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, skip: int, outer: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner + skip, outer, 3, padding=1)
        self.norm1 = nn.GroupNorm(8, outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, outer)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = torch.cat([x, skip], dim=1)
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)))


BATCH, INNER, SKIP, OUTER, SIZE = 4, 96, 48, 48, 36


def get_inputs() -> list[torch.Tensor]:
    x = torch.randn(BATCH, INNER, SIZE, SIZE)
    return [x, torch.randn(BATCH, SKIP, 2 * SIZE, 2 * SIZE)]


def get_init_inputs() -> list[int]:
    return [INNER, SKIP, OUTER]
