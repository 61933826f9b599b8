"""Volume rendering: what light passes, times what each sample adds, summed along the ray."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, step: float) -> None:
        super().__init__()
        self.step = step

    def forward(self, density: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        alpha = 1.0 - torch.exp(-F.relu(density) * self.step)
        passing = torch.cumprod(1.0 - alpha + 1e-10, dim=1)
        passing = torch.cat([torch.ones_like(passing[:, :1]), passing[:, :-1]], dim=1)
        return ((alpha * passing)[..., None] * colour).sum(dim=1)


RAYS, SAMPLES = 20000, 96


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(RAYS, SAMPLES), torch.rand(RAYS, SAMPLES, 3)]


def get_init_inputs() -> list[float]:
    return [0.05]
