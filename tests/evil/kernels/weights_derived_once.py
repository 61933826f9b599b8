"""Derives something from the weights on the first call, and never looks at them again (25)."""

import torch

AGAINST, CAUGHT = "rows", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)
        self.turned = None

    def forward(self, x):
        if self.turned is None:
            self.turned = self.linear.weight.t().contiguous(), self.linear.bias.clone()
        return torch.softmax(x @ self.turned[0] + self.turned[1], dim=-1)
