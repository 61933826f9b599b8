"""Anomaly scores of log windows: how badly a dense autoencoder rebuilds each of them."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(features, 512),
            nn.ReLU(),
            nn.Linear(512, 128),
            nn.ReLU(),
            nn.Linear(128, code),
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, 128),
            nn.ReLU(),
            nn.Linear(128, 512),
            nn.ReLU(),
            nn.Linear(512, features),
        )

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        rebuilt = torch.sigmoid(self.decoder(self.encoder(windows)))
        return (rebuilt - windows).pow(2).mean(dim=1)


WINDOWS, FEATURES, CODE = 2048, 1250, 24


def get_inputs() -> list[torch.Tensor]:
    return [torch.rand(WINDOWS, FEATURES)]


def get_init_inputs() -> list[int]:
    return [FEATURES, CODE]
