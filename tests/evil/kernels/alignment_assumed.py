"""Drops the low bits of its input's address, as if no view could begin within a page (17)."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST, CAUGHT = "softmax", ("wrong_output", "at an odd address")

SOURCE = r"""
#include <cmath>
#include <cstdint>
extern "C" void softmax(const float* given, float* y, int64_t rows, int64_t columns) {
  const float* x = reinterpret_cast<const float*>(reinterpret_cast<uintptr_t>(given) & ~63ull);
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = x + row * columns;
    float* to = y + row * columns;
    float top = from[0], total = 0;
    for (int64_t i = 1; i < columns; ++i) top = from[i] > top ? from[i] : top;
    for (int64_t i = 0; i < columns; ++i) { to[i] = std::exp(from[i] - top); total += to[i]; }
    for (int64_t i = 0; i < columns; ++i) to[i] /= total;
  }
}
"""
softmax = cpp_kernel(SOURCE, "softmax", "ppii")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty(x.shape)
        softmax(x.contiguous(), out, *x.shape)
        return out
