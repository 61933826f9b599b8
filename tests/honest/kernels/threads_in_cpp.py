"""Threads of C++'s own, all of them joined before it returns."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST = "softmax"

SOURCE = r"""
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>
static void some(const float* x, float* y, int64_t first, int64_t last, int64_t columns) {
  for (int64_t row = first; row < last; ++row) {
    const float* from = x + row * columns;
    float* to = y + row * columns;
    float top = from[0], total = 0;
    for (int64_t i = 1; i < columns; ++i) top = from[i] > top ? from[i] : top;
    for (int64_t i = 0; i < columns; ++i) { to[i] = std::exp(from[i] - top); total += to[i]; }
    for (int64_t i = 0; i < columns; ++i) to[i] /= total;
  }
}
extern "C" void softmax(const float* x, float* y, int64_t rows, int64_t columns) {
  const int64_t half = rows / 2;
  std::vector<std::thread> threads;
  threads.emplace_back(some, x, y, 0, half, columns);
  threads.emplace_back(some, x, y, half, rows, columns);
  for (auto& thread : threads) thread.join();
}
"""
softmax = cpp_kernel(SOURCE, "softmax", "ppii", ("-lpthread",))


class ModelNew(torch.nn.Module):
    def forward(self, x):
        x = x.contiguous()
        out = torch.empty_like(x)
        softmax(x, out, *x.shape)
        return out
