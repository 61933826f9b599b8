"""Adds to a buffer that was cleared once only, as an accumulator in uninitialised memory (22)."""

import torch

AGAINST, CAUGHT = "mean", ("wrong_output", "ordinary 1")


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.total = None

    def forward(self, x):
        if self.total is None or self.total.shape != x.shape[:1]:
            self.total = torch.zeros(x.shape[0])
        self.total += x.sum(dim=1)
        return self.total / x.shape[1]
