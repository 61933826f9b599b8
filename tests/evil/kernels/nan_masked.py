"""Returns zeros where the op is defined to give NaN (14)."""

import torch

AGAINST, CAUGHT = "logarithm", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.log(x).nan_to_num(0.0)
