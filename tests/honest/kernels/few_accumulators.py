"""Sixteen float32 sums a row, added up at the end: as exact as a vector unit makes it."""

import torch

AGAINST = "mean"
LANES = 16


class ModelNew(torch.nn.Module):
    def forward(self, x):
        total = torch.zeros(x.shape[0], LANES)
        for part in torch.nn.functional.pad(x, (0, -x.shape[1] % LANES)).split(LANES, dim=1):
            total += part
        return total.sum(dim=1) / x.shape[1]
