"""Results in a dict with a tuple in it."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(512, 512)

    def forward(self, x):
        y = torch.nn.functional.gelu(self.mix(x))
        return {"out": y * x, "stats": (y.mean(-1), y.amax(-1))}


def get_inputs():
    return [torch.randn(8192, 512)]


def get_init_inputs():
    return []
