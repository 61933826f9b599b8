"""Average pooling of video features over time and space."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool3d(kernel_size=(2, 3, 3), stride=(2, 2, 2), padding=(0, 1, 1))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.pool(clip)


BATCH, CHANNELS, FRAMES, SIZE = 2, 64, 16, 56


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, CHANNELS, FRAMES, SIZE, SIZE)]


def get_init_inputs() -> list[object]:
    return []
