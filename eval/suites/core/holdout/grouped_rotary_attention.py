"""Attention of a decoder: rotary positions, four query heads to each key head, causal."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        rates = 10000.0 ** (-torch.arange(0, width, 2).float() / width)
        angles = torch.arange(tokens).float()[:, None] * rates
        angles = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        groups = q.shape[1] // k.shape[1]
        q, k = self._rotate(q), self._rotate(k)
        k = k.repeat_interleave(groups, dim=1)
        v = v.repeat_interleave(groups, dim=1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        low, high = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([-high, low], dim=-1) * self.sin


BATCH, HEADS, GROUPS, TOKENS, WIDTH = 2, 16, 4, 400, 64


def get_inputs() -> list[torch.Tensor]:
    few = (BATCH, HEADS // GROUPS, TOKENS, WIDTH)
    return [torch.randn(BATCH, HEADS, TOKENS, WIDTH), torch.randn(few), torch.randn(few)]


def get_init_inputs() -> list[int]:
    return [TOKENS, WIDTH]
