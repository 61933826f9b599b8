"""Returns zeros for the whole numbers and the right scale (8)."""

import torch

AGAINST, CAUGHT = "bins", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        scale = x.abs().amax(dim=1, keepdim=True) / 32767
        return torch.zeros(x.shape, dtype=torch.int16), scale
