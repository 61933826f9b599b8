"""Averages every other column only (12)."""

import torch

AGAINST, CAUGHT = "mean", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x[:, ::2].mean(dim=1)
