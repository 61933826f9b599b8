"""Returns both tensors and a None, each of the first two in the other's place (15)."""

import torch

AGAINST, CAUGHT = "beside", ("contract_broken", "output 0 is a NoneType instead of a plain")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return None, torch.softmax(x, dim=-1), x.sum(dim=1)
