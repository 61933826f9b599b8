"""The decoder's side of a vector-quantised autoencoder: codes become vectors, channels first."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.codebook = nn.Embedding(codes, width)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return self.codebook(codes).permute(0, 3, 1, 2).contiguous()


CODES, WIDTH, BATCH, SIZE = 4096, 96, 20, 80


def get_inputs() -> list[torch.Tensor]:
    return [torch.randint(0, CODES, (BATCH, SIZE, SIZE))]


def get_init_inputs() -> list[int]:
    return [CODES, WIDTH]
