"""The mean of many uniform numbers is nearly a half (9)."""

import torch

AGAINST, CAUGHT = "mean", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.full((x.shape[0],), 0.5)
