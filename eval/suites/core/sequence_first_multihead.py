"""PyTorch's multi-head attention as it comes: time first, padding masked, at inference."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(features, heads, dropout=0.1)
        self.eval()

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        out, _ = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)
        return out


STEPS, BATCH, FEATURES, HEADS = 250, 8, 384, 6


def get_inputs() -> list[torch.Tensor]:
    padding = torch.rand(BATCH, STEPS) < 0.2
    padding[:, 0] = False
    return [torch.randn(STEPS, BATCH, FEATURES), padding]


def get_init_inputs() -> list[int]:
    return [FEATURES, HEADS]
