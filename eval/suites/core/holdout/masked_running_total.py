"""Running totals along the middle dimension, of those entries that were observed."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x * observed, dim=1)


PATIENTS, HOURS, SIGNALS = 80, 720, 60


def get_inputs() -> list[torch.Tensor]:
    shape = (PATIENTS, HOURS, SIGNALS)
    return [torch.randn(shape), (torch.rand(shape) < 0.6).float()]


def get_init_inputs() -> list[object]:
    return []
