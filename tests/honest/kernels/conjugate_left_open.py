"""Returns the lazily conjugated view that torch makes of a complex tensor."""

import torch

AGAINST = "spectrum"


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x).conj()
