"""Adds in blocks, so that rounding differs from the reference's in nearly every element."""

import torch

AGAINST = "mean"


class ModelNew(torch.nn.Module):
    def forward(self, x):
        total = torch.zeros(x.shape[0])
        for block in x.split(96, dim=1):
            total = total + block.sum(dim=1)
        return total / x.shape[1]
