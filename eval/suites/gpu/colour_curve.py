"""A curve per colour channel: gain, clamp, power. 403 MB in, as much out."""

import torch

BATCH, SIDE = 32, 1024


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.rand(3, 1, 1) + 0.5)
        self.lift = torch.nn.Parameter(torch.rand(3, 1, 1) * 0.1)

    def forward(self, image):
        return torch.clamp(image * self.gain + self.lift, 1e-4, 1.0) ** 0.4545


def get_inputs():
    return [torch.rand(BATCH, 3, SIDE, SIDE)]


def get_init_inputs():
    return []
