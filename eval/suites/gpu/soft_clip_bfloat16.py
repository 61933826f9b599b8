"""A soft limiter over half a gigabyte of bfloat16."""

import torch

CLIPS, SAMPLES = 1024, 262144


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x * 0.5) * 2.0


def get_inputs():
    return [torch.randn(CLIPS, SAMPLES).to(torch.bfloat16)]


def get_init_inputs():
    return []
