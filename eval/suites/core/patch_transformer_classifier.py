"""A small vision transformer, whole: patches, a class token, two layers, a head; at inference."""

import torch
import torch.nn.functional as F
from torch import nn


class Layer(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(features)
        self.attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(features)
        self.fc1 = nn.Linear(features, 4 * features)
        self.fc2 = nn.Linear(4 * features, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Model(nn.Module):
    def __init__(self, size: int, patch: int, features: int, heads: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, features, patch, stride=patch)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, features))
        self.places = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2 + 1, features))
        self.layers = nn.Sequential(Layer(features, heads), Layer(features, heads))
        self.norm = nn.LayerNorm(features)
        self.head = nn.Linear(features, classes)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        return self.head(self.norm(self.layers(x))[:, 0])


BATCH, SIZE, PATCH, FEATURES, HEADS, CLASSES = 16, 96, 12, 192, 4, 102


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, 3, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [SIZE, PATCH, FEATURES, HEADS, CLASSES]
