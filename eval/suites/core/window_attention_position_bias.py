"""Attention inside the windows of a vision backbone, with a bias for every pair of places."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, heads: int, places: int, width: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.bias = nn.Parameter(0.02 * torch.randn(heads, places, places))

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = (q * self.scale) @ k.transpose(-2, -1)
        weights = (scores + self.bias).softmax(dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2)


WINDOWS, HEADS, PLACES, WIDTH = 128, 6, 49, 32


def get_inputs() -> list[torch.Tensor]:
    shape = (WINDOWS, HEADS, PLACES, WIDTH)
    return [torch.randn(shape), torch.randn(shape), torch.randn(shape)]


def get_init_inputs() -> list[int]:
    return [HEADS, PLACES, WIDTH]
