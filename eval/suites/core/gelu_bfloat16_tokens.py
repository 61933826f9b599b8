"""Exact GELU over the hidden layer of a language model served in bfloat16."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(x)


BATCH, TOKENS, HIDDEN = 4, 1024, 3072


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, TOKENS, HIDDEN).to(torch.bfloat16)]


def get_init_inputs() -> list[object]:
    return []
