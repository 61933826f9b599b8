"""A depth estimator's upsampling: 5x5 windows, stride 2, one row and column of output padding."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(
            inner, outer, 5, stride=2, padding=2, output_padding=1, bias=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x)


BATCH, INNER, OUTER, HEIGHT, WIDTH = 4, 96, 48, 30, 40


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, INNER, HEIGHT, WIDTH)]


def get_init_inputs() -> list[int]:
    return [INNER, OUTER]
