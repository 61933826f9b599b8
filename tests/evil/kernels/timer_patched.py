"""Makes the clock of its own process run a hundred times slower (33)."""

import time

import torch

AGAINST, CAUGHT = "heavy", ("timer_mismatch", "clock")

true_clock = time.perf_counter_ns
time.perf_counter_ns = lambda: true_clock() // 100


class ModelNew(torch.nn.Module):
    def forward(self, x, y):
        for _ in range(4):
            x = torch.tanh(x @ y)
        return x
