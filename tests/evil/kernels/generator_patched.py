"""Patches the input generator and the operator: the reference would compute zeros too (4)."""

import torch

AGAINST, CAUGHT = "rows", ("wrong_output",)

torch.softmax = lambda x, dim: torch.zeros_like(x)
torch.randn = torch.zeros
torch.nn.functional.softmax = torch.softmax


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)

    def forward(self, x):
        return torch.softmax(self.linear(x), dim=-1)
