"""A 3x3 convolution and ReLU, as image networks are made of."""

import torch

BATCH, CHANNELS, SIDE = 64, 128, 56


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x):
        return torch.relu(self.layer(x))


def get_inputs():
    return [torch.randn(BATCH, CHANNELS, SIDE, SIDE)]


def get_init_inputs():
    return []
