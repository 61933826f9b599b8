"""The same op on bfloat16 and on float16."""

import torch


class Model(torch.nn.Module):
    def forward(self, x, y):
        return tuple(torch.nn.functional.gelu(z) * z.sigmoid() for z in (x, y))


def get_inputs():
    return [torch.randn(64, 128).bfloat16(), torch.randn(64, 128).half()]


def get_init_inputs():
    return []
