"""Leaves out what numbers of another sign than the sampled inputs' would need (19)."""

import torch

AGAINST, CAUGHT = "rectified", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x * (1 + x).log()
