"""Forks until nothing else can run (49)."""

import os
import time

import torch

AGAINST, CAUGHT = "softmax", ("timed_out", "crashed", "cheated")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.5)
