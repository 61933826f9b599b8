"""A mean over long rows of positive numbers, 64 MiB of them."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=1)


def get_inputs():
    return [torch.rand(1024, 16384)]


def get_init_inputs():
    return []
