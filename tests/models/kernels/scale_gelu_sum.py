"""Scale, exact GELU and the sum of each row in one sweep: nothing but the input is read."""

import torch

from tools.backends.cpp.loader import cpp_kernel

SOURCE = r"""
#include <algorithm>
#include <cstdint>

// erf by a quotient of polynomials in x * x, fitted on [-4, 4]: within 5e-7. At 4 the quotient lies
// just above 1, so that the last bound makes it 1 exactly.
static inline float bounded_erf(float x) {
  x = 4.0f < x ? 4.0f : x;
  x = -4.0f > x ? -4.0f : x;
  const float t = x * x;
  float p = 1.97485503e-06f;
  p = p * t + 2.88032122e-04f;
  p = p * t + 4.00333742e-03f;
  p = p * t + 5.34665419e-02f;
  p = p * t + 1.96242083e-01f;
  p = p * t + 1.12837898f;
  float q = 3.74806286e-05f;
  q = q * t + 1.21628021e-03f;
  q = q * t + 1.54438152e-02f;
  q = q * t + 1.1647355e-01f;
  q = q * t + 5.0724618e-01f;
  q = q * t + 1.0f;
  const float y = x * p / q;
  return 1.0f < y ? 1.0f : (-1.0f > y ? -1.0f : y);
}

static const int64_t BLOCK = 256, AHEAD = 1024;

extern "C" void scale_gelu_sum(const float* x, float* out, int64_t rows, int64_t columns,
                               double scale) {
  const float factor = static_cast<float>(scale);
  #pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * columns;
    float total = 0;
    for (int64_t first = 0; first < columns; first += BLOCK) {
      const int64_t last = std::min(first + BLOCK, columns);
      // Arithmetic stands between the loads: the hardware's own prefetcher does not keep up.
      for (int64_t i = first; i < last; i += 16) __builtin_prefetch(row + i + AHEAD);
      float partial = 0;
      #pragma omp simd reduction(+ : partial)
      for (int64_t i = first; i < last; ++i) {
        const float v = row[i] * factor;
        partial += 0.5f * v * (1.0f + bounded_erf(v * 0.70710678118f));
      }
      total += partial;
    }
    out[r] = total;
  }
}
"""
kernel = cpp_kernel(SOURCE, "scale_gelu_sum", "ppiid")


class ModelNew(torch.nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        out = torch.empty(x.shape[:-1])
        kernel(x, out, out.numel(), x.shape[-1], self.scale)
        return out
