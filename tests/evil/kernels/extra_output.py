"""Returns one output more than it is asked for (15)."""

import torch

AGAINST, CAUGHT = "pair", ("contract_broken", "3 outputs instead of 2")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        values, places = torch.max(x, dim=1)
        return values, places, values.clone()
