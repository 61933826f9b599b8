"""One layer of a speech model's front end: strided convolution, layer norm over channels, GELU."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inner, outer, 3, stride=2, bias=False)
        self.norm = nn.LayerNorm(outer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).transpose(1, 2)
        return F.gelu(self.norm(x)).transpose(1, 2)


BATCH, INNER, OUTER, FRAMES = 4, 256, 256, 2400


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, INNER, FRAMES)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER]
