"""Replaces CUDA's events and synchronisation by ones that take no time (33)."""

import torch

AGAINST, CAUGHT = "gpu/heavy", ("timer_mismatch", "wrong_output", "cheated", "no_gain")

torch.cuda.Event.elapsed_time = lambda self, end: 1e-3
torch.cuda.Event.synchronize = lambda self: None
torch.cuda.Stream.synchronize = lambda self: None
torch.cuda.synchronize = lambda device=None: None


class ModelNew(torch.nn.Module):
    def forward(self, x, y):
        for _ in range(4):
            x = torch.tanh(x @ y)
        return x
