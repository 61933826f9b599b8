"""Two maxima, the first of equals each, of scores that are rounded in another order."""

import torch

AGAINST = "router"


class ModelNew(torch.nn.Module):
    def __init__(self, experts):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(experts))

    def forward(self, logits):
        logits = logits + self.bias
        powers = torch.exp2((logits - logits.amax(-1, keepdim=True)) * 1.4426950408889634)
        first, place = powers.max(-1, keepdim=True)
        second, other = powers.scatter(-1, place, -1.0).max(-1, keepdim=True)
        weights = torch.cat([first, second], -1)
        return weights / (first + second), torch.cat([place, other], -1)
