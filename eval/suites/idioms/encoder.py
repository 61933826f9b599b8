"""torch's own transformer layer, in evaluation mode."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True)
        self.eval()

    def forward(self, x):
        return self.layer(x)


def get_inputs():
    return [torch.randn(8, 512, 256)]


def get_init_inputs():
    return []
