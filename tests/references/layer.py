"""A few milliseconds in which every row is answered for itself."""

import torch


class Model(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)

    def forward(self, x):
        return torch.nn.functional.gelu(self.linear(x))


def get_inputs():
    return [torch.randn(1024, 512)]


def get_init_inputs():
    return [512]
