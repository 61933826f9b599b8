"""Forecast of a day from a week: three layers of LSTM, and a head on the last state."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, series: int, hidden: int, horizon: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(series, hidden, num_layers=3, batch_first=True)
        self.head = nn.Linear(hidden, horizon * series)
        self.horizon = horizon

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        _, (state, _) = self.lstm(history)
        return self.head(state[-1]).view(history.shape[0], self.horizon, -1)


BATCH, STEPS, SERIES, HIDDEN, HORIZON = 64, 168, 28, 112, 24


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, STEPS, SERIES)]


def get_init_inputs() -> list[int]:
    return [SERIES, HIDDEN, HORIZON]
