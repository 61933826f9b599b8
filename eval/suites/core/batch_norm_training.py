"""Batch norm as it runs while a segmentation net is trained: statistics of this very batch."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, momentum=0.05)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


BATCH, CHANNELS, HEIGHT, WIDTH = 16, 48, 90, 120


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, CHANNELS, HEIGHT, WIDTH)]


def get_init_inputs() -> list[int]:
    return [CHANNELS]
