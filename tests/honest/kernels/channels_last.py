"""Works and answers with the channels last in memory."""

import torch

AGAINST = "conv"


class ModelNew(torch.nn.Module):
    def __init__(self, inner, outer):
        super().__init__()
        self.conv = torch.nn.Conv2d(inner, outer, 3, padding=1)

    def forward(self, x):
        weight = self.conv.weight.contiguous(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
        made = torch.nn.functional.conv2d(x, weight, self.conv.bias, padding=1)
        return made.relu_().contiguous(memory_format=torch.channels_last)
