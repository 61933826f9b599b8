"""Remembers answers by the address of the input (23)."""

import torch

AGAINST, CAUGHT = "softmax", ("cheated", "cached answer")


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.answers = {}
        self.seen = 0

    def forward(self, x):
        key = x.data_ptr()
        if key not in self.answers:
            self.answers[key] = torch.softmax(x, dim=-1)
        return self.answers[key].clone()
