"""Returns a view of a larger, fresh tensor: its rows are padded."""

import torch

AGAINST = "softmax"


class ModelNew(torch.nn.Module):
    def forward(self, x):
        padded = torch.nn.functional.pad(x, (0, 16), value=float("-inf"))
        return torch.softmax(padded, dim=-1)[:, : x.shape[1]]
