"""Second moments of the channels of many short recordings, in double precision."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.bmm(x.transpose(1, 2), x) / x.shape[1]


WINDOWS, SAMPLES, CHANNELS = 64, 500, 96


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(WINDOWS, SAMPLES, CHANNELS, dtype=torch.float64)]


def get_init_inputs() -> list[object]:
    return []
