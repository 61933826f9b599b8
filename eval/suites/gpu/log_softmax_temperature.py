"""Log probabilities at a temperature, 262 MB in and out."""

import torch

TOKENS, VOCABULARY = 2048, 32000


class Model(torch.nn.Module):
    def forward(self, logits):
        return torch.log_softmax(logits / 0.7, dim=-1)


def get_inputs():
    return [torch.randn(TOKENS, VOCABULARY)]


def get_init_inputs():
    return []
