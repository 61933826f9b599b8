"""One explicit step of the heat equation on a periodic grid, its diffusivity not uniform."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, step: float, spacing: float) -> None:
        super().__init__()
        self.step = step
        self.spacing = spacing

    def forward(self, u: torch.Tensor, diffusivity: torch.Tensor) -> torch.Tensor:
        neighbours = (
            torch.roll(u, 1, dims=0)
            + torch.roll(u, -1, dims=0)
            + torch.roll(u, 1, dims=1)
            + torch.roll(u, -1, dims=1)
        )
        laplacian = (neighbours - 4.0 * u) / self.spacing**2
        return u + self.step * diffusivity * laplacian


HEIGHT, WIDTH = 1200, 1100


def get_inputs() -> list[torch.Tensor]:
    temperature = torch.randn(HEIGHT, WIDTH, dtype=torch.float64)
    return [temperature, torch.rand(HEIGHT, WIDTH, dtype=torch.float64) + 0.1]


def get_init_inputs() -> list[float]:
    return [0.05, 0.8]
