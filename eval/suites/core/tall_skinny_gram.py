"""Normal equations of a least-squares fit: very many observations of few variables."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.t() @ x


OBSERVATIONS, VARIABLES = 300_000, 48


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(OBSERVATIONS, VARIABLES)]


def get_init_inputs() -> list[object]:
    return []
