"""Rows in sixteen bits with a scale each: many steps, of which rounding decides few."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        scale = x.abs().amax(dim=1, keepdim=True) / 32767
        return (x / scale).round().to(torch.int16), scale


def get_inputs():
    return [torch.randn(500, 256)]


def get_init_inputs():
    return []
