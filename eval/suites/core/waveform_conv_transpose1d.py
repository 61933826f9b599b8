"""A vocoder makes eight samples of one frame."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int, factor: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose1d(
            inner, outer, 2 * factor, stride=factor, padding=factor // 2
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.upsample(x)


BATCH, INNER, OUTER, FRAMES, FACTOR = 4, 128, 64, 1200, 8


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, INNER, FRAMES)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER, FACTOR]
