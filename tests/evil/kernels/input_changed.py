"""Works in place, and so changes the caller's input (20)."""

import torch

AGAINST, CAUGHT = "softmax", ("contract_broken", "writes to its input")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x.sub_(x.amax(dim=-1, keepdim=True)).softmax(dim=-1)
