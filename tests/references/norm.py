"""Batch norm in training mode: buffers change with every call, and outputs ignore them."""

import torch


class Model(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(channels)

    def forward(self, x):
        return torch.relu(self.norm(x))


def get_inputs():
    return [torch.randn(128, 24)]


def get_init_inputs():
    return [24]
