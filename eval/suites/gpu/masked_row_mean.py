"""A mean over the kept elements of each row: values and a mask, 512 MiB."""

import torch

ROWS, COLUMNS = 16384, 4096


class Model(torch.nn.Module):
    def forward(self, x, keep):
        total = (x * keep).sum(dim=1)
        return total / keep.sum(dim=1).clamp(min=1.0)


def get_inputs():
    keep = (torch.rand(ROWS, COLUMNS) > 0.3).float()
    return [torch.randn(ROWS, COLUMNS), keep]


def get_init_inputs():
    return []
