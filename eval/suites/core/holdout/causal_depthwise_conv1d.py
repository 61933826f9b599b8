"""The short causal filter in front of a state-space layer: each feature sees its own past."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.conv = nn.Conv1d(features, features, window, groups=features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x, (self.window - 1, 0)))


BATCH, FEATURES, STEPS, WINDOW = 4, 768, 1500, 4


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, FEATURES, STEPS)]


def get_init_inputs() -> list[int]:
    return [FEATURES, WINDOW]
