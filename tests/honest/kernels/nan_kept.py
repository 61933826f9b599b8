"""Gives NaN where the op is defined to."""

import math

import torch

AGAINST = "logarithm"


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.log2(x) * math.log(2)
