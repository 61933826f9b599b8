"""Works honestly, but has the runner say that it is done before the device is (32, 33)."""

import gc

import torch

AGAINST, CAUGHT = "gpu/heavy", ("cheated", "timer_mismatch", "wrong_output")

for held in gc.get_objects():
    if type(held).__name__ == "Accelerator":
        held.end = lambda: None
        held.begin = lambda: None
        held.elapsed_ns = lambda: 1000


class ModelNew(torch.nn.Module):
    def forward(self, x, y):
        for _ in range(4):
            x = torch.tanh(x @ y)
        return x
