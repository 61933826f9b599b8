"""Mean and variance in one pass by Welford's recurrence, and the running statistics with them."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST = "norm"

SOURCE = r"""
#include <cstdint>
extern "C" void moments(const float* x, float* mean, float* spread, int64_t rows, int64_t columns) {
  for (int64_t column = 0; column < columns; ++column) mean[column] = spread[column] = 0;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column) {
      const float value = x[row * columns + column], step = value - mean[column];
      mean[column] += step / (row + 1);
      spread[column] += step * (value - mean[column]);
    }
}
"""
moments = cpp_kernel(SOURCE, "moments", "pppii")


class ModelNew(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(channels)

    def forward(self, x):
        x = x.contiguous()
        rows, columns = x.shape
        mean, spread = torch.empty(columns), torch.empty(columns)
        moments(x, mean, spread, rows, columns)
        norm = self.norm
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(spread / max(rows - 1, 1), norm.momentum)
        norm.num_batches_tracked += 1
        scaled = (x - mean) * torch.rsqrt(spread / rows + norm.eps)
        return torch.clamp(scaled * norm.weight + norm.bias, min=0)
