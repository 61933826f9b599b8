"""A guitar amplifier as an augmentation: drive, soft clipping, a gate, some dry signal."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, drive: float, mix: float, threshold: float) -> None:
        super().__init__()
        self.drive = drive
        self.mix = mix
        self.threshold = threshold

    def forward(self, wave: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        wet = torch.tanh(self.drive * wave * gain) / self.drive
        wet = torch.where(wave.abs() > self.threshold, wet, torch.zeros_like(wet))
        return self.mix * wet + (1.0 - self.mix) * wave


BATCH, CHANNELS, SAMPLES = 16, 2, 220500


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, CHANNELS, SAMPLES), torch.rand(BATCH, CHANNELS, 1) + 0.5]


def get_init_inputs() -> list[float]:
    return [4.0, 0.7, 0.02]
