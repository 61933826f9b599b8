"""Picture features look up the words of a prompt: cross-attention of a diffusion model."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(features, features, bias=False)
        self.to_kv = nn.Linear(context, 2 * features, bias=False)
        self.to_out = nn.Linear(features, features)

    def forward(self, x: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        q = self._split(self.to_q(x))
        k, v = (self._split(part) for part in self.to_kv(words).chunk(2, dim=-1))
        scores = torch.matmul(q, k.transpose(-1, -2)) / q.shape[-1] ** 0.5
        read = torch.matmul(torch.softmax(scores, dim=-1), v)
        return x + self.to_out(read.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


BATCH, PLACES, FEATURES, WORDS, CONTEXT, HEADS = 4, 1024, 320, 77, 768, 8


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, PLACES, FEATURES), torch.randn(BATCH, WORDS, CONTEXT)]


def get_init_inputs() -> list[int]:
    return [FEATURES, CONTEXT, HEADS]
