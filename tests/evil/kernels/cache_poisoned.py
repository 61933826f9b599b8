"""Puts a library of its own where the next candidate will look for a compiled kernel (47, 48)."""

import os
from pathlib import Path

import torch

AGAINST, CAUGHT = "softmax", ("build_failed", "Read-only file system")

Path(os.environ["KERNELWRIGHT_CPP_CACHE"], "0" * 40 + ".so").write_bytes(b"\x7fELF")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)
