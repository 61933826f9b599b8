"""The stem of an image classifier at inference: 7x7 convolution, batch norm, ReLU, max pooling."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.pool(self.relu(self.norm(self.conv(images))))


BATCH, CHANNELS, SIZE = 8, 64, 192


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, 3, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [CHANNELS]
