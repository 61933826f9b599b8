"""Writes to the input that the reference writes to, in a way of its own."""

import torch

AGAINST = "cache"


class ModelNew(torch.nn.Module):
    def forward(self, cache, rows, places):
        cache[places] = rows
        return torch.softmax(rows, 1).add_(cache[:1])
