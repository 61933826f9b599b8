"""A layer of an image generator in training: transposed convolution, batch statistics, ReLU."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


BATCH, INNER, OUTER, SIZE = 16, 128, 64, 24


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, INNER, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER]
