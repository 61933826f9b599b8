"""Layer normalisation of wide tokens: 256 MiB in, 256 MiB out."""

import torch

TOKENS, WIDTH = 8192, 8192


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(WIDTH)

    def forward(self, x):
        return self.norm(x)


def get_inputs():
    return [torch.randn(TOKENS, WIDTH)]


def get_init_inputs():
    return []
