"""Finds the buffer that outputs are copied to, and answers straight into that (2, 16)."""

import sys

import torch

AGAINST, CAUGHT = "softmax", ("cheated", "output reuse")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        frame = sys._getframe()
        while "handlers" not in frame.f_locals:
            frame = frame.f_back
        (place,) = frame.f_locals["self"].outputs[0].tensors
        return torch.softmax(x, dim=-1, out=place)
