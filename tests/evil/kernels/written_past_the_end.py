"""Writes beyond its output in C++, over whatever the allocator keeps there (22)."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST, CAUGHT = "softmax", ("crashed", "signal")

SOURCE = r"""
#include <cstdint>
extern "C" void fill(float* y, int64_t elements) {
  for (int64_t i = -16; i < 64 * elements; ++i) y[i] = 1;
}
"""
fill = cpp_kernel(SOURCE, "fill", "pi")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.softmax(x, dim=-1)
        fill(out, 1 << 24)
        return out
