"""Leaves out what only unusual inputs need: the subtraction of the row's maximum (19)."""

import torch

AGAINST, CAUGHT = "softmax", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        powers = x.exp()
        return powers / powers.sum(dim=-1, keepdim=True)
