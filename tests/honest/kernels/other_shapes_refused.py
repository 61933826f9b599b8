"""Made for one shape, and says so where it is given another."""

import torch

AGAINST = "softmax"


class ModelNew(torch.nn.Module):
    def forward(self, x):
        if x.shape != (256, 1024):
            raise ValueError(f"this kernel takes (256, 1024), not {tuple(x.shape)}")
        powers = torch.exp(x - x.amax(dim=-1, keepdim=True))
        return powers / powers.sum(dim=-1, keepdim=True)
