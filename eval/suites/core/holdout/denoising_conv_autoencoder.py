"""A whole denoiser of grey pictures: strided convolutions, transposed ones, a residual."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, 1, 4, stride=2, padding=1),
        )

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        return noisy - self.decoder(self.encoder(noisy))


BATCH, CHANNELS, SIZE = 16, 32, 128


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, 1, SIZE, SIZE)]


def get_init_inputs() -> list[int]:
    return [CHANNELS]
