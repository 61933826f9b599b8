"""Between two layers of a decoder: add to the residual stream, hand on it and its RMS norm."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(1.0 + 0.1 * torch.randn(features))

    def forward(
        self, residual: torch.Tensor, update: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        residual = residual + update
        variance = residual.pow(2).mean(-1, keepdim=True)
        return residual, self.weight * (residual * torch.rsqrt(variance + self.epsilon))


TOKENS, FEATURES = 2500, 2304


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(TOKENS, FEATURES), 0.3 * torch.randn(TOKENS, FEATURES)]


def get_init_inputs() -> list[object]:
    return [FEATURES, 1e-5]
