"""A detector's box branch: convolution, positive distances, boxes around the cells' centres."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, channels: int, height: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)
        self.stride = stride
        rows = (torch.arange(height).float() + 0.5).view(height, 1).expand(height, width)
        columns = (torch.arange(width).float() + 0.5).view(1, width).expand(height, width)
        self.register_buffer("centres", torch.stack([columns, rows]).unsqueeze(0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        distances = F.softplus(self.conv(features))
        low = self.centres - distances[:, :2]
        high = self.centres + distances[:, 2:]
        boxes = torch.cat([low, high], dim=1) * self.stride
        return boxes.flatten(2).transpose(1, 2)


BATCH, CHANNELS, HEIGHT, WIDTH, STRIDE = 8, 128, 60, 80, 8


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, CHANNELS, HEIGHT, WIDTH)]


def get_init_inputs() -> list[int]:
    return [CHANNELS, HEIGHT, WIDTH, STRIDE]
