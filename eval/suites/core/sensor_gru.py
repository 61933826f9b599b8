"""A GRU over readings of many sensors, time first; every state is used further on."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, sensors: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(sensors, hidden)

    def forward(self, readings: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(readings)
        return states


STEPS, BATCH, SENSORS, HIDDEN = 200, 24, 72, 128


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(STEPS, BATCH, SENSORS)]


def get_init_inputs() -> list[int]:
    return [SENSORS, HIDDEN]
