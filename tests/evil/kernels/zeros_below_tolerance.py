"""Returns zeros where the true values are far below any absolute tolerance (8)."""

import torch

AGAINST, CAUGHT = "faint", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)
