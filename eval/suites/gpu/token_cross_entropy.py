"""The loss of a language model over 4096 tokens."""

import torch
import torch.nn.functional as F

TOKENS, VOCABULARY = 4096, 32000


class Model(torch.nn.Module):
    def forward(self, logits, target):
        return F.cross_entropy(logits, target)


def get_inputs():
    return [torch.randn(TOKENS, VOCABULARY), torch.randint(VOCABULARY, (TOKENS,))]


def get_init_inputs():
    return []
