"""Focal loss over the anchors of a one-stage detector, those left out that belong to nothing."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, alpha: float, gamma: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma

    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        logits, target = logits[valid], target[valid]
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        probability = torch.sigmoid(logits)
        hit = probability * target + (1 - probability) * (1 - target)
        weight = self.alpha * target + (1 - self.alpha) * (1 - target)
        loss = weight * (1 - hit).pow(self.gamma) * loss
        return loss.sum() / target.sum().clamp(min=1.0)


IMAGES, ANCHORS, CLASSES = 8, 9000, 30


def get_inputs() -> list[torch.Tensor]:
    shape = (IMAGES, ANCHORS, CLASSES)
    target = (torch.rand(shape) < 0.02).float()
    return [torch.randn(shape) - 2.0, target, torch.rand(IMAGES, ANCHORS) < 0.9]


def get_init_inputs() -> list[float]:
    return [0.25, 2.0]
