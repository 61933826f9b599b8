"""Takes the third expert for the second where they differ by less than a thousandth (12)."""

import torch

AGAINST, CAUGHT = "router", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def __init__(self, experts):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(experts))

    def forward(self, logits):
        scores = torch.softmax(logits + self.bias, dim=-1)
        weights, which = torch.topk(scores, 3, dim=-1)
        near = (weights[:, 1:2] - weights[:, 2:]) < 1e-3 * weights[:, 1:2]
        which = torch.cat([which[:, :1], torch.where(near, which[:, 2:], which[:, 1:2])], -1)
        weights = weights[:, :2]
        return weights / weights.sum(dim=-1, keepdim=True), which
