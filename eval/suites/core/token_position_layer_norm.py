"""What enters an encoder: embeddings of words, segments and positions, added and normalised."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, words: int, positions: int, features: int) -> None:
        super().__init__()
        self.word = nn.Embedding(words, features)
        self.segment = nn.Embedding(2, features)
        self.position = nn.Embedding(positions, features)
        self.norm = nn.LayerNorm(features, eps=1e-12)
        self.dropout = nn.Dropout(0.1)
        self.eval()

    def forward(self, words: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        places = torch.arange(words.shape[1], device=words.device)
        x = self.word(words) + self.segment(segments) + self.position(places)
        return self.dropout(self.norm(x))


WORDS, POSITIONS, FEATURES, BATCH, TOKENS = 20000, 512, 384, 96, 400


def get_inputs() -> list[torch.Tensor]:
    words = torch.randint(0, WORDS, (BATCH, TOKENS))
    return [words, torch.randint(0, 2, (BATCH, TOKENS))]


def get_init_inputs() -> list[int]:
    return [WORDS, POSITIONS, FEATURES]
