"""Of the returns of each laser beam the nearest one, and which it was."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, ranges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = torch.min(ranges, dim=1)
        return nearest.values, nearest.indices


SWEEPS, RETURNS, BEAMS = 24, 200, 2048


def get_inputs() -> list[torch.Tensor]:
    return [torch.rand(SWEEPS, RETURNS, BEAMS) * 80.0]


def get_init_inputs() -> list[object]:
    return []
