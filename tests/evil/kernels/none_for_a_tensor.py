"""Returns None where a tensor is asked for, which would be compared with nothing (15)."""

import torch

AGAINST, CAUGHT = "beside", ("contract_broken", "output 2 is a NoneType instead of a plain")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1), None, None
