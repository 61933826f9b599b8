"""Keeps its weights under names of its own, so that only the seed makes them equal."""

import torch

AGAINST = "rows"


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        linear = torch.nn.Linear(features, features)
        self.matrix = torch.nn.Parameter(linear.weight.detach().t().contiguous())
        self.shift = torch.nn.Parameter(linear.bias.detach())

    def forward(self, x):
        return torch.softmax(x @ self.matrix + self.shift, dim=-1)
