"""Running sums of blocks, and of the blocks' totals: another order than one after another."""

import torch

AGAINST = "cumulative"
BLOCK = 32


class ModelNew(torch.nn.Module):
    def forward(self, x):
        rows, columns = x.shape
        padded = torch.nn.functional.pad(x, (0, -columns % BLOCK)).view(rows, -1, BLOCK)
        inner = padded.cumsum(dim=2)
        before = inner[:, :, -1].cumsum(dim=1)
        inner[:, 1:] += before[:, :-1, None]
        return inner.view(rows, -1)[:, :columns]
