"""A whole tensor less its mean, over its spread."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x):
        return torch.tanh((x - x.mean()) / (x.std() + 1e-6))


def get_inputs():
    return [torch.randn(4096, 2048)]
