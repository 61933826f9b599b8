"""A whole small classifier of 64x64 pictures, in training."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inner = 3
        for outer in (32, 64, 128):
            stages += [nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer)]
            stages += [nn.ReLU(), nn.MaxPool2d(2)]
            inner = outer
        self.features = nn.Sequential(*stages)
        self.head = nn.Linear(128 * 8 * 8, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images).flatten(1))


BATCH, SIZE, CLASSES = 64, 64, 43


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, 3, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [CLASSES]
