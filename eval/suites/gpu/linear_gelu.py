"""A linear layer and GELU, the first half of a transformer's MLP."""

import torch
import torch.nn.functional as F

TOKENS, WIDTH, INNER = 8192, 1024, 4096


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, INNER)

    def forward(self, x):
        return F.gelu(self.layer(x))


def get_inputs():
    return [torch.randn(TOKENS, WIDTH)]


def get_init_inputs():
    return []
