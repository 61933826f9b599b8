"""Returns a tensor of the CPU's, for somebody else to move (15)."""

import torch

AGAINST, CAUGHT = "gpu/softmax", ("contract_broken",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1).cpu()
