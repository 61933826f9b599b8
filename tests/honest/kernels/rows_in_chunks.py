"""Takes a few rows through all layers at a time, so that they stay in the cache."""

import torch

AGAINST = "heavy"


class ModelNew(torch.nn.Module):
    def forward(self, x, y):
        made = torch.empty(x.shape)
        for rows, out in zip(x.split(128), made.split(128), strict=True):
            for _ in range(3):
                rows = torch.mm(rows, y).tanh_()
            torch.mm(rows, y, out=out).tanh_()
        return made
