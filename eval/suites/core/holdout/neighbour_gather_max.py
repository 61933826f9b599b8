"""Points of a cloud look at their neighbours: differences to each, a ReLU, the largest of them."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, points: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
        batch, count, width = points.shape
        index = neighbours.reshape(batch, -1, 1).expand(-1, -1, width)
        near = points.gather(1, index).view(batch, count, -1, width)
        return torch.relu(near - points[:, :, None, :]).amax(dim=2)


BATCH, POINTS, NEAR, WIDTH = 8, 2000, 16, 48


def get_inputs() -> list[torch.Tensor]:
    neighbours = torch.randint(0, POINTS, (BATCH, POINTS, NEAR))
    return [torch.randn(BATCH, POINTS, WIDTH), neighbours]


def get_init_inputs() -> list[object]:
    return []
