"""Returns None between two tensors, as attention does that is asked for no weights."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1), None, x.sum(dim=1)


def get_inputs():
    return [torch.randn(64, 100)]


def get_init_inputs():
    return []
