"""Masks a NaN in its input, which the op is defined to hand on (14)."""

import torch

AGAINST, CAUGHT = "softmax", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x.nan_to_num(), dim=-1)
