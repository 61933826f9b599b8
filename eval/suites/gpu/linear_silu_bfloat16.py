"""A bfloat16 linear layer and SiLU: tensor cores' own ground."""

import torch
import torch.nn.functional as F

TOKENS, WIDTH, INNER = 16384, 4096, 4096


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, INNER, bias=False).to(torch.bfloat16)

    def forward(self, x):
        return F.silu(self.layer(x))


def get_inputs():
    return [torch.randn(TOKENS, WIDTH).to(torch.bfloat16)]


def get_init_inputs():
    return []
