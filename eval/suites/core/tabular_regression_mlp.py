"""A regression on tables: numbers in, four hidden layers with norm and SELU, one number out."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, columns: int, hidden: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm1d(columns)]
        width = columns
        for _ in range(depth):
            layers += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.SELU()]
            layers += [nn.Dropout(0.2)]
            width = hidden
        layers.append(nn.Linear(width, 1))
        self.layers = nn.Sequential(*layers)
        self.eval()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.layers(rows).squeeze(-1)


ROWS, COLUMNS, HIDDEN, DEPTH = 6000, 94, 256, 4


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(ROWS, COLUMNS)]


def get_init_inputs() -> list[int]:
    return [COLUMNS, HIDDEN, DEPTH]
