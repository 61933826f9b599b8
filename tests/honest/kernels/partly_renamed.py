"""Keeps one matrix transposed under a name of its own, and the norm's weights under theirs."""

import torch

AGAINST = "scaled"


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        linear = torch.nn.Linear(features, features)
        self.matrix = torch.nn.Parameter(linear.weight.detach().t().contiguous())
        self.shift = torch.nn.Parameter(linear.bias.detach())
        self.norm = torch.nn.LayerNorm(features)

    def forward(self, x):
        return self.norm(x @ self.matrix + self.shift)
