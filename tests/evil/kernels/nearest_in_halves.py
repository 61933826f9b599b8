"""Looks for the nearest code among distances in bfloat16 (13)."""

import torch

AGAINST, CAUGHT = "codes", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def __init__(self, codes, size):
        super().__init__()
        self.codes = torch.nn.Parameter(torch.randn(codes, size))

    def forward(self, x):
        codes = self.codes.bfloat16()
        return (codes.square().sum(1) - 2 * x.bfloat16() @ codes.t()).argmin(1)
