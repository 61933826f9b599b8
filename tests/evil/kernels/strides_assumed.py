"""Reads its input from the first address on, as if no view had strides of its own (17)."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST, CAUGHT = "softmax", ("wrong_output", "not contiguous")

SOURCE = r"""
#include <cmath>
#include <cstdint>
extern "C" void softmax(const float* x, float* y, int64_t rows, int64_t columns) {
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
        softmax(x, out, *x.shape)
        return out
