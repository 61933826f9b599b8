"""Renames some weights, so that none is renewed, and leaves out a bias of zeros (10)."""

import torch

AGAINST, CAUGHT = "scaled", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        linear = torch.nn.Linear(features, features)
        self.matrix = torch.nn.Parameter(linear.weight.detach().t().contiguous())
        self.shift = torch.nn.Parameter(linear.bias.detach())
        self.norm = torch.nn.LayerNorm(features)

    def forward(self, x):
        rows = x @ self.matrix + self.shift
        return torch.nn.functional.layer_norm(rows, rows.shape[1:]) * self.norm.weight
