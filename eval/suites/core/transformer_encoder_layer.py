"""A layer of a text encoder, normalised before attention and before the feed-forward part."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(features)
        self.qkv = nn.Linear(features, 3 * features)
        self.proj = nn.Linear(features, features)
        self.norm2 = nn.LayerNorm(features)
        self.mlp = nn.Sequential(
            nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, features)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, f = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, t, 3, self.heads, f // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(read.transpose(1, 2).reshape(b, t, f))
        return x + self.mlp(self.norm2(x))


BATCH, TOKENS, FEATURES, HEADS, HIDDEN = 8, 128, 512, 8, 1536


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, TOKENS, FEATURES)]


def get_init_inputs() -> list[int]:
    return [FEATURES, HEADS, HIDDEN]
