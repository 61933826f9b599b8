"""Firing rates of a population model: softplus keeps them positive."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, beta: float) -> None:
        super().__init__()
        self.activation = nn.Softplus(beta=beta)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(x)


TRIALS, BINS, NEURONS = 60, 400, 250


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(TRIALS, BINS, NEURONS)]


def get_init_inputs() -> list[float]:
    return [2.0]
