"""One block of an all-MLP vision model: mix the patches, then the features."""

import torch
from torch import nn


class Mlp(nn.Module):
    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Model(nn.Module):
    def __init__(self, patches: int, features: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(features)
        self.patches = Mlp(patches, 2 * patches)
        self.norm2 = nn.LayerNorm(features)
        self.features = Mlp(features, 2 * features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.patches(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.features(self.norm2(x))


BATCH, PATCHES, FEATURES = 16, 144, 320


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, PATCHES, FEATURES)]


def get_init_inputs() -> list[int]:
    return [PATCHES, FEATURES]
