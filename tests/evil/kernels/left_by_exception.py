"""Leaves through the exception that ends a program quietly and with success (6)."""

import torch

AGAINST, CAUGHT = "softmax", ("crashed", "SystemExit")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        raise SystemExit(0)
