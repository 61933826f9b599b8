"""Writes rows into its first input, which it does not return."""

import torch


class Model(torch.nn.Module):
    def forward(self, cache, rows, places):
        cache.index_copy_(0, places, rows)
        return rows.softmax(dim=1) + cache[0]


def get_inputs():
    return [torch.randn(128, 64), torch.randn(32, 64), torch.randperm(128)[:32]]


def get_init_inputs():
    return []
