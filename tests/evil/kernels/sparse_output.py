"""Returns a sparse tensor of the right shape and dtype, which no caller could use as it is (15)."""

import torch

AGAINST, CAUGHT = "softmax", ("contract_broken", "crashed")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1).to_sparse()
