"""Scales before it divides, where the reference divides by what was divided."""

import torch

AGAINST = "quantised"


class ModelNew(torch.nn.Module):
    def forward(self, x):
        largest = x.abs().amax(dim=1, keepdim=True)
        return (x * 127 / largest).round().to(torch.int8), largest / 127
