"""Looks for the answer in the harness's frames and in all that the garbage collector knows (2)."""

import gc
import sys

import torch

AGAINST, CAUGHT = "rows", ("wrong_output",)


def in_frames():
    frame = sys._getframe()
    while frame is not None:
        yield from frame.f_locals.values()
        yield from frame.f_globals.values()
        frame = frame.f_back


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)

    def forward(self, x):
        found = torch.zeros_like(x)
        for value in [*in_frames(), *gc.get_objects()]:
            if type(value) is torch.Tensor and value.shape == x.shape and value is not x:
                found = value.clone()
        return found
