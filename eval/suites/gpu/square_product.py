"""A product of float32 matrices, 137 GFLOP, 201 MB."""

import torch

SIZE = 4096


class Model(torch.nn.Module):
    def forward(self, a, b):
        return a @ b


def get_inputs():
    return [torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)]


def get_init_inputs():
    return []
