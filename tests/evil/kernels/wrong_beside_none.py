"""Answers rightly before the None and wrongly behind it, where a comparison may end (15)."""

import torch

AGAINST, CAUGHT = "beside", ("wrong_output", "output 2:")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1), None, x.sum(dim=1) * 1.01
