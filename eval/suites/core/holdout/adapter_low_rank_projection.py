"""A projection that was tuned by a low-rank adapter, with its residual and a GELU."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = nn.Linear(features, features)
        self.down = nn.Parameter(torch.randn(features, rank) / features**0.5)
        self.up = nn.Parameter(torch.randn(rank, features) / rank**0.5)
        self.scale = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        adapted = (x @ self.down) @ self.up
        return x + F.gelu(self.base(x) + self.scale * adapted)


BATCH, TOKENS, FEATURES, RANK = 4, 300, 1280, 16


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, TOKENS, FEATURES)]


def get_init_inputs() -> list[object]:
    return [FEATURES, RANK, 32.0]
