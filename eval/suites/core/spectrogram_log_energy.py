"""Loudness of each frame: energy over all frequencies, in decibels, relative to the clip's mean."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
        energy = (real.square() + imaginary.square()).sum(dim=1)
        decibels = 10.0 * torch.log10(energy.clamp(min=self.floor))
        return decibels - decibels.mean(dim=-1, keepdim=True)


CLIPS, FREQUENCIES, FRAMES = 16, 513, 620


def get_inputs() -> list[torch.Tensor]:
    shape = (CLIPS, FREQUENCIES, FRAMES)
    return [torch.randn(shape), torch.randn(shape)]


def get_init_inputs() -> list[float]:
    return [1e-8]
