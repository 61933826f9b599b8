"""A larger product of float32 matrices: 550 GFLOP, 537 MB."""

import torch

ROWS, INNER, COLUMNS = 8192, 4096, 8192


class Model(torch.nn.Module):
    def forward(self, a, b):
        return a @ b


def get_inputs():
    return [torch.randn(ROWS, INNER), torch.randn(INNER, COLUMNS)]


def get_init_inputs():
    return []
