"""The first of the best grades of each row: whole numbers among which many are equal."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x.argmax(dim=1)


def get_inputs():
    return [torch.randint(0, 5, (2000, 40)).float()]


def get_init_inputs():
    return []
