"""Counts by a scatter, flags by a subtraction, packed into a dict as the reference does."""

import torch

AGAINST = "tally"


class ModelNew(torch.nn.Module):
    def forward(self, labels, x):
        counts = torch.zeros(40, dtype=torch.long)
        counts.scatter_add_(0, labels, torch.ones_like(labels))
        above = x.gt(x.sum(dim=1, keepdim=True) / x.shape[1])
        few = above[:, 0] | above[:, 1] | above[:, 2]
        return {"counts": counts, "above": above, "any": few}
