"""Returns one of two outputs (15)."""

import torch

AGAINST, CAUGHT = "pair", ("contract_broken", "1 outputs instead of 2")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x.amax(dim=1)
