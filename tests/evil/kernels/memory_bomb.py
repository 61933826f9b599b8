"""Takes memory until there is none left (49)."""

import torch

AGAINST, CAUGHT = "softmax", ("crashed",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        held = []
        while True:
            held.append(torch.empty(1 << 28))
