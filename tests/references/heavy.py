"""A few milliseconds of matrix products: time enough to cheat with."""

import torch


class Model(torch.nn.Module):
    def forward(self, x, y):
        for _ in range(4):
            x = torch.tanh(x @ y)
        return x


def get_inputs():
    return [torch.randn(512, 512), torch.randn(512, 512) / 23]


def get_init_inputs():
    return []
