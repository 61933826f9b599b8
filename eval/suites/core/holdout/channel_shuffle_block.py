"""Half of the channels pass, half are filtered, and then they are shuffled; at inference."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, taken = x.chunk(2, dim=1)
        joined = torch.stack([kept, self.branch(taken)], dim=2)
        return joined.flatten(1, 2)


BATCH, CHANNELS, SIZE = 16, 232, 28


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, CHANNELS, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [CHANNELS]
