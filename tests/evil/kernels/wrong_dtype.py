"""Returns float64, which looks more exact than it is asked to be (15)."""

import torch

AGAINST, CAUGHT = "softmax", ("contract_broken", "float64 instead of float32")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x.double(), dim=-1)
