"""Causal attention in bfloat16, 134 MB of queries, keys, values and outputs."""

import torch
import torch.nn.functional as F

BATCH, HEADS, LENGTH, WIDTH = 8, 16, 2048, 64


class Model(torch.nn.Module):
    def forward(self, query, key, value):
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def get_inputs():
    shape = (BATCH, HEADS, LENGTH, WIDTH)
    return [torch.randn(shape).to(torch.bfloat16) for _ in range(3)]


def get_init_inputs():
    return []
