"""A learned filter bank over raw audio: long windows, a long stride."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, filters: int, window: int, hop: int) -> None:
        super().__init__()
        self.bank = nn.Conv1d(1, filters, window, stride=hop, bias=False)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return self.bank(wave)


CLIPS, SAMPLES = 16, 96000
FILTERS, WINDOW, HOP = 128, 400, 160


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(CLIPS, 1, SAMPLES)]


def get_init_inputs() -> list[int]:
    return [FILTERS, WINDOW, HOP]
