"""Adds up a row without waiting for the other programs that add to the same place (22)."""

import torch
import triton
import triton.language as tl

AGAINST, CAUGHT = "gpu/mean", ("wrong_output",)


@triton.jit
def add_parts(x, out, columns, BLOCK: tl.constexpr):
    row, part = tl.program_id(0), tl.program_id(1)
    places = part * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + row * columns + places, mask=places < columns, other=0.0)
    # A load and a store where an atomic addition belongs.
    tl.store(out + row, tl.load(out + row) + tl.sum(values) / columns)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.zeros(x.shape[0], device=x.device)
        add_parts[(x.shape[0], triton.cdiv(x.shape[1], 64))](x, out, x.shape[1], BLOCK=64)
        return out
