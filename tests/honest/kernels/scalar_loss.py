"""A loss by hand: a scalar from floats and integers."""

import torch

AGAINST = "loss"


class ModelNew(torch.nn.Module):
    def forward(self, logits, labels):
        chosen = logits.gather(1, labels[:, None])[:, 0]
        return (torch.logsumexp(logits, dim=1) - chosen).mean()
