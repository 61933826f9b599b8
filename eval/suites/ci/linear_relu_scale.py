"""A linear layer, ReLU and a scale: a product with what follows it."""

import torch
from torch import nn

BATCH = 512
FEATURES = 256
HIDDEN = 512


class Model(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)

    def forward(self, x):
        return torch.relu(self.linear(x)) * 0.5


def get_inputs():
    return [torch.randn(BATCH, FEATURES)]


def get_init_inputs():
    return [FEATURES, HIDDEN]
