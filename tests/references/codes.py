"""The nearest code of each vector, by distances that are computed."""

import torch


class Model(torch.nn.Module):
    def __init__(self, codes, size):
        super().__init__()
        self.codes = torch.nn.Parameter(torch.randn(codes, size))

    def forward(self, x):
        return torch.cdist(x, self.codes).argmin(dim=1)


def get_inputs():
    return [torch.randn(3000, 48)]


def get_init_inputs():
    return [256, 48]
