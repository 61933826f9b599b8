"""Three rounds over a weighted graph given as a matrix, then one vector for the whole graph."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, hidden: int, rounds: int) -> None:
        super().__init__()
        self.enter = nn.Linear(features, hidden)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(rounds - 1))

    def forward(self, nodes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        weights = weights + torch.eye(weights.shape[-1], device=weights.device)
        scale = weights.sum(dim=-1, keepdim=True).rsqrt()
        weights = scale * weights * scale.transpose(-1, -2)
        nodes = F.relu(weights @ self.enter(nodes))
        for layer in self.layers:
            nodes = F.relu(weights @ layer(nodes))
        return nodes.mean(dim=1)


GRAPHS, NODES, FEATURES, HIDDEN, ROUNDS = 8, 400, 100, 192, 3


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(GRAPHS, NODES, FEATURES), torch.rand(GRAPHS, NODES, NODES)]


def get_init_inputs() -> list[int]:
    return [FEATURES, HIDDEN, ROUNDS]
