"""Batch normalisation with fixed statistics, and ReLU."""

import torch

BATCH, CHANNELS, SIDE = 64, 256, 64


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(CHANNELS).eval()

    def forward(self, x):
        return torch.relu(self.norm(x))


def get_inputs():
    return [torch.randn(BATCH, CHANNELS, SIDE, SIDE)]


def get_init_inputs():
    return []
