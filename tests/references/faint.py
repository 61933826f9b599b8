"""Outputs far below any fixed absolute tolerance."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x * 1e-7


def get_inputs():
    return [torch.randn(64, 64)]


def get_init_inputs():
    return []
