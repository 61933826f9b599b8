"""What the pattern is timed on: the stem of an image classifier and a residual block."""

import torch
from torch import nn


class Model(nn.Module):
    """Stem, max pooling, residual block and mean over the image, with batch norm at inference."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images are (batch, 3, height, width)."""
        x = self.pool(torch.relu(self.norm(self.stem(images))))
        y = torch.relu(self.first_norm(self.first(x)))
        y = torch.relu(self.second_norm(self.second(y)) + x)
        return y.mean((2, 3))


def get_inputs() -> list[torch.Tensor]:
    """Eight images, 5 MB."""
    return [torch.randn(8, 3, 224, 224)]


def get_init_inputs() -> list[int]:
    """The number of channels."""
    return [64]
