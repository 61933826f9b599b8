"""Random features whose frequencies are a plain attribute: no state_dict has them."""

import torch


class Model(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.frequencies = torch.randn(3, features)

    def forward(self, x):
        return torch.sin(x @ self.frequencies) * torch.sigmoid(self.frequencies).sum(0)


def get_inputs():
    return [torch.randn(64, 3)]


def get_init_inputs():
    return [96]
