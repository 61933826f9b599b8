"""A 1x1 convolution and SiLU: a product in disguise."""

import torch
import torch.nn.functional as F

BATCH, CHANNELS, SIDE = 32, 256, 64


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x):
        return F.silu(self.layer(x))


def get_inputs():
    return [torch.randn(BATCH, CHANNELS, SIDE, SIDE)]


def get_init_inputs():
    return []
