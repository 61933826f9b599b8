"""Masked language modelling: only the positions that were hidden count."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        return F.cross_entropy(logits[hidden], target[hidden])


BATCH, TOKENS, VOCABULARY = 16, 128, 8000


def get_inputs() -> list[torch.Tensor]:
    logits = torch.randn(BATCH, TOKENS, VOCABULARY)
    target = torch.randint(0, VOCABULARY, (BATCH, TOKENS))
    return [logits, target, torch.rand(BATCH, TOKENS) < 0.3]


def get_init_inputs() -> list[object]:
    return []
