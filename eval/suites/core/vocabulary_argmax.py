"""Greedy decoding: the likeliest token of each position."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.argmax(dim=-1)


POSITIONS, VOCABULARY = 640, 32003


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(POSITIONS, VOCABULARY)]


def get_init_inputs() -> list[object]:
    return []
