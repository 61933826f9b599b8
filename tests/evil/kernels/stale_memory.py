"""Returns uninitialised memory, in the hope that the right answer still lies there (1)."""

import torch

AGAINST, CAUGHT = "rows", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)

    def forward(self, x):
        return torch.empty_like(x)
