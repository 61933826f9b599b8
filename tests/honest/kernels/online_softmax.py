"""One pass for maximum and sum together, in C++: another algorithm with the same answer."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST = "softmax"

SOURCE = r"""
#include <cmath>
#include <cstdint>
#include <limits>
extern "C" void softmax(const float* x, float* y, int64_t rows, int64_t columns) {
  #pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = x + row * columns;
    float top = -std::numeric_limits<float>::infinity(), total = 0;
    for (int64_t i = 0; i < columns; ++i) {
      if (from[i] > top) { total *= std::exp(top - from[i]); top = from[i]; }
      total += std::exp(from[i] - top);
    }
    if (std::isnan(total)) top = total;
    for (int64_t i = 0; i < columns; ++i) y[row * columns + i] = std::exp(from[i] - top) / total;
  }
}
"""
softmax = cpp_kernel(SOURCE, "softmax", "ppii")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        x = x.contiguous()
        out = torch.empty_like(x)
        softmax(x, out, *x.shape)
        return out
