"""Keeps a workspace between calls, and returns fresh memory every time."""

import torch

AGAINST = "softmax"


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.workspace = None

    def forward(self, x):
        if self.workspace is None or self.workspace.shape != x.shape:
            self.workspace = torch.empty_like(x)
        torch.sub(x, x.amax(dim=-1, keepdim=True), out=self.workspace)
        self.workspace.exp_()
        return self.workspace / self.workspace.sum(dim=-1, keepdim=True)
