"""Rates through softplus, decayed along the row and summed: pointwise ops into one reduction."""

import torch
from torch import nn

ROWS = 2048
STEPS = 1024


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("decay", torch.linspace(1.0, 0.1, STEPS))

    def forward(self, x):
        return (nn.functional.softplus(x) * self.decay).sum(dim=-1)


def get_inputs():
    return [torch.randn(ROWS, STEPS)]


def get_init_inputs():
    return []
