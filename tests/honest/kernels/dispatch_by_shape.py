"""A kernel for the shapes it was made for, and the framework for all others."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST = "softmax"

SOURCE = r"""
#include <cmath>
#include <cstdint>
constexpr int64_t columns = 1024;
extern "C" void softmax(const float* x, float* y, int64_t rows) {
  #pragma omp parallel for
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
softmax = cpp_kernel(SOURCE, "softmax", "ppi")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        if x.shape != (256, 1024) or x.dtype is not torch.float32 or not x.is_contiguous():
            return torch.softmax(x, dim=-1)
        out = torch.empty_like(x)
        softmax(x, out, x.shape[0])
        return out
