"""Leaves the matrix products to the library, and writes its results into one buffer per call."""

import torch

AGAINST = "heavy"


class ModelNew(torch.nn.Module):
    def forward(self, x, y):
        for _ in range(4):
            x = torch.mm(x, y).tanh_()
        return x
