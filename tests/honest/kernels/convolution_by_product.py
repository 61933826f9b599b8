"""A convolution as one matrix product over unfolded patches."""

import torch

AGAINST = "conv"


class ModelNew(torch.nn.Module):
    def __init__(self, inner, outer):
        super().__init__()
        self.conv = torch.nn.Conv2d(inner, outer, 3, padding=1)

    def forward(self, x):
        patches = torch.nn.functional.unfold(x, 3, padding=1)
        made = self.conv.weight.flatten(1) @ patches + self.conv.bias[:, None]
        return made.clamp_(min=0).view(x.shape[0], -1, *x.shape[2:])
