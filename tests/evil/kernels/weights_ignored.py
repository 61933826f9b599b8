"""Bakes the weights of its construction in, and ignores those that it is given later (10)."""

import torch

AGAINST, CAUGHT = "rows", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)
        self.baked = [self.linear.weight.detach().clone(), self.linear.bias.detach().clone()]

    def forward(self, x):
        return torch.softmax(torch.nn.functional.linear(x, *self.baked), dim=-1)
