"""A student is taught by a teacher: divergence of their softened predictions."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        predicted = F.log_softmax(student / self.temperature, dim=-1)
        target = F.softmax(teacher / self.temperature, dim=-1)
        return F.kl_div(predicted, target, reduction="batchmean") * self.temperature**2


BATCH, CLASSES = 2048, 3129


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, CLASSES), 2.0 * torch.randn(BATCH, CLASSES)]


def get_init_inputs() -> list[float]:
    return [4.0]
