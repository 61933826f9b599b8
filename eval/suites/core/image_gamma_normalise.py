"""From camera bytes to what a backbone is fed: scale, gamma, mean and spread per colour."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.float() / 255.0
        x = x.pow(self.gamma)
        return (x - self.mean) / self.std


BATCH, HEIGHT, WIDTH = 8, 480, 640


def get_inputs() -> list[torch.Tensor]:
    return [torch.randint(0, 256, (BATCH, 3, HEIGHT, WIDTH), dtype=torch.uint8)]


def get_init_inputs() -> list[float]:
    return [2.2]
