"""Returns a view, as the reference does."""

import torch

AGAINST = "turned"


class ModelNew(torch.nn.Module):
    def forward(self, x, scale, nothing):
        return x.transpose(0, 1)
