"""Returns a dense copy where the reference returns a view."""

import torch

AGAINST = "turned"


class ModelNew(torch.nn.Module):
    def forward(self, x, scale, nothing):
        assert nothing is None
        assert scale == 2.5
        return x.t().contiguous()
