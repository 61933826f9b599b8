"""Keeps a transposed copy of the weights for as long as the weights are what they were."""

import torch

AGAINST = "rows"


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)
        self.derived = None

    def turned(self):
        weight = self.linear.weight
        made_from = (weight.data_ptr(), weight._version)
        if self.derived is None or self.derived[0] != made_from:
            self.derived = (made_from, weight.detach().t().contiguous())
        return self.derived[1]

    def forward(self, x):
        return torch.softmax(torch.addmm(self.linear.bias, x, self.turned()), dim=-1)
