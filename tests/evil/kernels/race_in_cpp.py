"""Four threads add to one sum without a lock; a barrier makes the lost updates certain (22)."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST, CAUGHT = "mean", ("wrong_output", "ordinary 1")

SOURCE = r"""
#include <cstdint>
extern "C" void mean(const float* x, float* y, int64_t rows, int64_t columns) {
  for (int64_t row = 0; row < rows; ++row) {
    volatile float total = 0;
    #pragma omp parallel num_threads(4)
    {
      float mine = 0;
      #pragma omp for nowait
      for (int64_t i = 0; i < columns; ++i) mine += x[row * columns + i];
      const float before = total;
      #pragma omp barrier
      total = before + mine;
    }
    y[row] = total / columns;
  }
}
"""
mean = cpp_kernel(SOURCE, "mean", "ppii")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty(x.shape[0])
        mean(x.contiguous(), out, *x.shape)
        return out
