"""The convolution module of a speech encoder: norm, gate, depthwise filter, projection."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, window: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.expand = nn.Conv1d(features, 2 * features, 1)
        self.depthwise = nn.Conv1d(features, features, window, padding=window // 2, groups=features)
        self.batch_norm = nn.BatchNorm1d(features)
        self.project = nn.Conv1d(features, features, 1)
        self.dropout = nn.Dropout(0.1)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm(x).transpose(1, 2)
        out = F.glu(self.expand(out), dim=1)
        out = F.silu(self.batch_norm(self.depthwise(out)))
        return x + self.dropout(self.project(out)).transpose(1, 2)


BATCH, FRAMES, FEATURES, WINDOW = 8, 400, 256, 31


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, FRAMES, FEATURES)]


def get_init_inputs() -> list[int]:
    return [FEATURES, WINDOW]
