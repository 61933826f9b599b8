"""Does the product in bfloat16 and calls the result float32 (13)."""

import torch

AGAINST, CAUGHT = "rows", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)

    def forward(self, x):
        weight, bias = self.linear.weight.bfloat16(), self.linear.bias.bfloat16()
        logits = torch.nn.functional.linear(x.bfloat16(), weight, bias).float()
        return torch.softmax(logits, dim=-1)
