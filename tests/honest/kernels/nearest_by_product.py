"""Distances without their roots and without what is common to all: one product and a row."""

import torch

AGAINST = "codes"


class ModelNew(torch.nn.Module):
    def __init__(self, codes, size):
        super().__init__()
        self.codes = torch.nn.Parameter(torch.randn(codes, size))

    def forward(self, x):
        return torch.addmm(self.codes.square().sum(1), x, self.codes.t(), alpha=-2).argmin(1)
