"""A classifier's head: linear, GELU, linear, and a softmax over the classes."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    """Two linear layers, with a softmax over classes at the end."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.classes = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities (batch, classes) of features (batch, features)."""
        return torch.softmax(self.classes(F.gelu(self.hidden(x))), dim=-1)


def get_inputs() -> list[torch.Tensor]:
    """A batch of features, 8 MB."""
    return [torch.randn(2048, 1024)]


def get_init_inputs() -> list[int]:
    """Features, hidden units and classes."""
    return [1024, 1536, 1000]
