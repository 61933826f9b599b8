"""Hands its input back as its output (16)."""

import torch

AGAINST, CAUGHT = "faint", ("contract_broken", "memory of an input")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x
