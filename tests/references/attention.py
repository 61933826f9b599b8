"""Attention of four heads, scores and all."""

import torch


class Model(torch.nn.Module):
    def forward(self, query, key, value):
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        return torch.softmax(scores, dim=-1) @ value


def get_inputs():
    return [torch.randn(2, 4, 48, 32) for _ in range(3)]


def get_init_inputs():
    return []
