"""Keeps a buffer of its own, which the reference does not have, and counts its calls in it."""

import torch

AGAINST = "layer"


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        made = torch.addmm(self.linear.bias, x, self.linear.weight.t())
        return made * 0.5 * (1 + torch.erf(made * 0.5**0.5))
