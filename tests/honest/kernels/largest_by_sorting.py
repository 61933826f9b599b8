"""Sorts whole rows and returns views of the first columns, floats and integers."""

import torch

AGAINST = "topk"


class ModelNew(torch.nn.Module):
    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, x):
        values, places = torch.sort(x, dim=1, descending=True)
        return values[:, : self.most], places[:, : self.most]
