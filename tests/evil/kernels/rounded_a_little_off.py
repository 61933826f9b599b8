"""Rounds up from 0.501 on: one element in a thousand is off by one (12)."""

import torch

AGAINST, CAUGHT = "quantised", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        scale = x.abs().amax(dim=1, keepdim=True) / 127
        return (x / scale + 0.499).floor().to(torch.int8), scale
