"""The largest elements of every row with their places: a named tuple of floats and integers."""

import torch


class Model(torch.nn.Module):
    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, x):
        return torch.topk(x, self.most, dim=1)


def get_inputs():
    return [torch.randn(48, 300)]


def get_init_inputs():
    return [7]
