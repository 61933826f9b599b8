"""A Fourier transform: complex outputs."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x).conj().resolve_conj()


def get_inputs():
    return [torch.randn(40, 96)]


def get_init_inputs():
    return []
