"""Changes its input where the reference does, and returns that very input."""

import torch

AGAINST = "updated"


class ModelNew(torch.nn.Module):
    def forward(self, x, step):
        torch.add(step, x, alpha=0.9, out=x)
        return x
