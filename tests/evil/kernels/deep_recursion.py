"""Recurses until the stack is gone, with all of Python's guards taken down (49)."""

import sys

import torch

AGAINST, CAUGHT = "softmax", ("crashed",)

sys.setrecursionlimit(2**31 - 1)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return next(map(self.forward, [x]))
