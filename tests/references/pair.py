"""Two outputs, one of them integers."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        values, places = torch.max(x, dim=1)
        return values, places


def get_inputs():
    return [torch.randn(32, 100)]


def get_init_inputs():
    return []
