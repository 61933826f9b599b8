"""Embeddings scaled to length one: 512 MiB in, 512 MiB out."""

import torch

COUNT, WIDTH = 131072, 1024


class Model(torch.nn.Module):
    def forward(self, x):
        return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def get_inputs():
    return [torch.randn(COUNT, WIDTH)]


def get_init_inputs():
    return []
