"""A linear layer whose outputs are summed and halved: the product can be had for less."""

import torch

TOKENS, WIDTH, INNER = 32768, 2048, 2048


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, INNER)

    def forward(self, x):
        return self.layer(x).sum(dim=1, keepdim=True) * 0.5


def get_inputs():
    return [torch.randn(TOKENS, WIDTH)]


def get_init_inputs():
    return []
