"""Returns a tensor where None is asked for, as if a buffer were there for it (15)."""

import torch

AGAINST, CAUGHT = "beside", ("contract_broken", "output 1 is a Tensor instead of None")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        made = torch.softmax(x, dim=-1)
        return made, made.clone(), x.sum(dim=1)
