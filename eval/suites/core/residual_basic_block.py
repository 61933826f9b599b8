"""A residual block of an image classifier at inference, with a projection on its shortcut."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outer)
        self.shortcut = nn.Sequential(
            nn.Conv2d(inner, outer, 1, stride=2, bias=False), nn.BatchNorm2d(outer)
        )
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


BATCH, INNER, OUTER, SIZE = 16, 64, 128, 48


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, INNER, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER]
