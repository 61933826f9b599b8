"""The library's fused attention in place of products and a softmax."""

import torch

AGAINST = "attention"


class ModelNew(torch.nn.Module):
    def forward(self, query, key, value):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value)
