"""Some milliseconds of a GPU's matrix products: time enough to cheat with."""

import torch


class Model(torch.nn.Module):
    def forward(self, x, y):
        for _ in range(4):
            x = torch.tanh(x @ y)
        return x


def get_inputs():
    return [torch.randn(3072, 3072), torch.randn(3072, 3072) / 55]


def get_init_inputs():
    return []
