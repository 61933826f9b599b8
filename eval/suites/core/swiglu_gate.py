"""The gate of a feed-forward layer: a projection holds both halves, SiLU of one scales the rest."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, projected: torch.Tensor) -> torch.Tensor:
        gate, value = projected.chunk(2, dim=-1)
        gate = gate.clamp(max=self.limit)
        value = value.clamp(min=-self.limit, max=self.limit)
        return F.silu(gate) * (value + 1.0)


TOKENS, HIDDEN = 3000, 2816


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(TOKENS, 2 * HIDDEN)]


def get_init_inputs() -> list[float]:
    return [7.0]
