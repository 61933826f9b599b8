"""Many products of small matrices, 403 MB moved."""

import torch

BATCH, SIZE = 2048, 128


class Model(torch.nn.Module):
    def forward(self, a, b):
        return torch.bmm(a, b)


def get_inputs():
    return [torch.randn(BATCH, SIZE, SIZE), torch.randn(BATCH, SIZE, SIZE)]


def get_init_inputs():
    return []
