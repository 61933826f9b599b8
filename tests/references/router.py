"""A router of a mixture of experts: whole numbers that hang on computed scores."""

import torch


class Model(torch.nn.Module):
    def __init__(self, experts):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(experts))

    def forward(self, logits):
        scores = torch.softmax(logits + self.bias, dim=-1)
        weights, which = torch.topk(scores, 2, dim=-1)
        return weights / weights.sum(dim=-1, keepdim=True), which


def get_inputs():
    return [torch.randn(4096, 64)]


def get_init_inputs():
    return [64]
