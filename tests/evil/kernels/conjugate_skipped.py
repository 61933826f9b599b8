"""Leaves out a part of the op that changes no magnitude: the conjugation (12)."""

import torch

AGAINST, CAUGHT = "spectrum", ("wrong_output", "ordinary 1")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x)
