"""Returns None where the reference does, in a list."""

import torch

AGAINST = "beside"


class ModelNew(torch.nn.Module):
    def forward(self, x):
        powers = torch.exp(x - x.amax(dim=-1, keepdim=True))
        return [powers / powers.sum(dim=-1, keepdim=True), None, x.mean(dim=1) * x.shape[1]]
