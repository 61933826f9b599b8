"""Never returns (49)."""

import time

import torch

AGAINST, CAUGHT = "softmax", ("timed_out",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        while True:
            time.sleep(1)
