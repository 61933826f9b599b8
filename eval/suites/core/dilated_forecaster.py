"""A causal convolutional forecaster: residual blocks whose view doubles, then a head."""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.reach = 2 * dilation
        self.conv1 = nn.Conv1d(channels, channels, 3, dilation=dilation)
        self.conv2 = nn.Conv1d(channels, channels, 3, dilation=dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.conv1(F.pad(x, (self.reach, 0))))
        out = F.relu(self.conv2(F.pad(out, (self.reach, 0))))
        return F.relu(x + out)


class Model(nn.Module):
    def __init__(self, series: int, channels: int, levels: int, horizon: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(series, channels, 1)
        self.blocks = nn.ModuleList(Block(channels, 2**level) for level in range(levels))
        self.head = nn.Linear(channels, horizon)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x.transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, :, -1])


BATCH, STEPS, SERIES, CHANNELS, LEVELS, HORIZON = 64, 256, 18, 64, 5, 12


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, STEPS, SERIES)]


def get_init_inputs() -> list[int]:
    return [SERIES, CHANNELS, LEVELS, HORIZON]
