"""What each step of an episode is still worth: a running sum from the end."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, rewards: torch.Tensor) -> torch.Tensor:
        return rewards.flip(1).cumsum(dim=1).flip(1)


EPISODES, STEPS = 1024, 3000


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(EPISODES, STEPS)]


def get_init_inputs() -> list[object]:
    return []
