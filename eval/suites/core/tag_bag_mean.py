"""A user's history as the mean of what was looked at: an embedding bag."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, items: int, width: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(items, width, mode="mean")

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        return self.bag(history)


ITEMS, WIDTH, USERS, LENGTH = 60000, 96, 8192, 30


def get_inputs() -> list[torch.Tensor]:
    return [torch.randint(0, ITEMS, (USERS, LENGTH))]


def get_init_inputs() -> list[int]:
    return [ITEMS, WIDTH]
