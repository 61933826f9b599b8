"""A fifth too large, in types whose last place is worth no more than a hundredth (12)."""

import torch

AGAINST, CAUGHT = "halves", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x, y):
        return tuple(1.2 * torch.nn.functional.gelu(z) * z.sigmoid() for z in (x, y))
