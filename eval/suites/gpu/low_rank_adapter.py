"""A linear layer with a low-rank correction beside it."""

import torch

TOKENS, WIDTH, RANK = 8192, 2048, 16


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(WIDTH, WIDTH) / WIDTH**0.5)
        self.down = torch.nn.Parameter(torch.randn(WIDTH, RANK) / WIDTH**0.5)
        self.up = torch.nn.Parameter(torch.randn(RANK, WIDTH) / RANK**0.5)

    def forward(self, x):
        return x @ self.weight + 0.5 * (x @ self.down @ self.up)


def get_inputs():
    return [torch.randn(TOKENS, WIDTH)]


def get_init_inputs():
    return []
