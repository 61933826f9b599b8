"""Works in float32 and rounds once at the end."""

import torch

AGAINST = "halves"


class ModelNew(torch.nn.Module):
    def one(self, x):
        wide = x.float()
        return (torch.nn.functional.gelu(wide) * torch.sigmoid(wide)).to(x.dtype)

    def forward(self, x, y):
        return self.one(x), self.one(y)
