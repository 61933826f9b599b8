"""Writes far beyond what it was given (22)."""

import torch
import triton
import triton.language as tl

AGAINST, CAUGHT = "gpu/mean", ("crashed", "wrong_output")


@triton.jit
def write(out, far):
    tl.store(out + far, 1.0)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = x.mean(dim=1)
        write[(1,)](out, 1 << 40)
        return out
