"""What share of a row's total has been reached at each place."""

import torch

ROWS, COLUMNS = 8192, 8192


class Model(torch.nn.Module):
    def forward(self, x):
        sums = torch.cumsum(x, dim=1)
        return sums / sums[:, -1:]


def get_inputs():
    return [torch.rand(ROWS, COLUMNS) + 0.01]


def get_init_inputs():
    return []
