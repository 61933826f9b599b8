"""Returns one row, repeated by a stride of 0 (15)."""

import torch

AGAINST, CAUGHT = "softmax", ("contract_broken", "stride of 0")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x[:1], dim=-1).expand(x.shape)
