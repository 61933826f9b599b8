"""A C++ kernel through the C ABI, parallel over rows."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST = "softmax"

SOURCE = r"""
#include <cmath>
#include <cstdint>
extern "C" void softmax(const float* x, float* y, int64_t rows, int64_t columns) {
  #pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = x + row * columns;
    float* to = y + row * columns;
    float top = from[0], total = 0;
    for (int64_t i = 1; i < columns; ++i) top = from[i] > top ? from[i] : top;
    for (int64_t i = 0; i < columns; ++i) { to[i] = std::exp(from[i] - top); total += to[i]; }
    const float scale = 1 / total;
    for (int64_t i = 0; i < columns; ++i) to[i] *= scale;
  }
}
"""
softmax = cpp_kernel(SOURCE, "softmax", "ppii")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        x = x.contiguous()
        out = torch.empty_like(x)
        softmax(x, out, x.shape[0], x.shape[1])
        return out
