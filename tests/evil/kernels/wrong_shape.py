"""Returns a shape that only broadcasting would make right (15)."""

import torch

AGAINST, CAUGHT = "mean", ("contract_broken", "shape [64, 1] instead of [64]")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=1, keepdim=True)
