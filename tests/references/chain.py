"""A chain of products that is cheaper from the right."""

import torch


class Model(torch.nn.Module):
    def forward(self, a, b, c):
        return a @ b @ c


def get_inputs():
    return [torch.randn(96, 128), torch.randn(128, 96), torch.randn(96, 8)]


def get_init_inputs():
    return []
