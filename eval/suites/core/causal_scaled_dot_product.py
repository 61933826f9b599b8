"""Causal attention of a small language model, through PyTorch's own function."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


BATCH, HEADS, TOKENS, WIDTH = 2, 12, 512, 64


def get_inputs() -> list[torch.Tensor]:
    shape = (BATCH, HEADS, TOKENS, WIDTH)
    return [torch.randn(shape), torch.randn(shape), torch.randn(shape)]


def get_init_inputs() -> list[object]:
    return []
