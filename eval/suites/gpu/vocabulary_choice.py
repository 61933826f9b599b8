"""The likeliest word for each token, 524 MB of logits."""

import torch

TOKENS, VOCABULARY = 4096, 32000


class Model(torch.nn.Module):
    def forward(self, logits):
        return logits.argmax(dim=-1)


def get_inputs():
    return [torch.randn(TOKENS, VOCABULARY)]


def get_init_inputs():
    return []
