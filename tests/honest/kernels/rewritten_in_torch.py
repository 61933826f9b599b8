"""The same op from other operators."""

import torch

AGAINST = "rows"


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)

    def forward(self, x):
        logits = torch.addmm(self.linear.bias, x, self.linear.weight.t())
        return torch.exp(logits - torch.logsumexp(logits, dim=-1, keepdim=True))
