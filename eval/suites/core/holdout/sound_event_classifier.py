"""Events in spectrograms: three stages of convolution, norm, ReLU and average pooling; a head."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False)
            for a, b in zip((1, *widths[:-1]), widths, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.head = nn.Linear(widths[-1], classes)
        self.eval()

    def forward(self, spectrogram: torch.Tensor) -> torch.Tensor:
        x = spectrogram
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.avg_pool2d(F.relu(norm(conv(x))), 2)
        x = x.mean(dim=2).amax(dim=-1)
        return torch.sigmoid(self.head(x))


BATCH, BANDS, FRAMES, CLASSES = 24, 64, 248, 50


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, 1, BANDS, FRAMES)]


def get_init_inputs() -> list[object]:
    return [(24, 48, 96), CLASSES]
