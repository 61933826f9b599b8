"""A Fourier transform as two products with sines and cosines, kept by length."""

import torch

AGAINST = "spectrum"


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.waves = {}

    def forward(self, x):
        length = x.shape[-1]
        if length not in self.waves:
            steps = torch.arange(length, dtype=torch.float64)
            turns = steps[:, None] * steps[: length // 2 + 1] % length
            angles = turns * (2 * torch.pi / length)
            self.waves[length] = angles.cos().float(), angles.sin().float()
        cosines, sines = self.waves[length]
        return torch.complex(x @ cosines, x @ sines)
