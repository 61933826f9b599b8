"""Returns a tensor of the right shape and dtype that has no memory at all (15)."""

import torch

AGAINST, CAUGHT = "softmax", ("crashed", "contract_broken")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x.to("meta"), dim=-1)
