"""Attention weights over padded documents: scale, mask, softmax, and zero where padding is."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = scores * self.scale
        scores = scores.masked_fill(mask[:, None, :], -1e4)
        return torch.softmax(scores, dim=-1).masked_fill(mask[:, None, :], 0.0)


BATCH, QUERIES, KEYS = 24, 256, 700


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, QUERIES, KEYS), torch.rand(BATCH, KEYS) < 0.25]


def get_init_inputs() -> list[float]:
    return [0.125]
