"""A linear layer scaled and added to its residual."""

import torch

TOKENS, WIDTH = 16384, 2048


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, WIDTH)
        self.scale = torch.nn.Parameter(torch.full((WIDTH,), 0.1))

    def forward(self, x, residual):
        return residual + self.scale * self.layer(x)


def get_inputs():
    return [torch.randn(TOKENS, WIDTH), torch.randn(TOKENS, WIDTH)]


def get_init_inputs():
    return []
