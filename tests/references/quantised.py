"""Rows in eight bits with a scale each: numbers that are rounded to whole ones."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        scale = x.abs().amax(dim=1, keepdim=True) / 127
        return (x / scale).round().to(torch.int8), scale


def get_inputs():
    return [torch.randn(2000, 512)]


def get_init_inputs():
    return []
