"""Scale, exact GELU and the sum of each row in one sweep: nothing but the input is read."""

import torch

from tools.backends.cpp.loader import cpp_kernel

SOURCE = r"""
#include <cmath>
#include <cstdint>

// erfc(z) for z >= 0 by a Chebyshev fit of log(erfc(z) * exp(z * z) / t) in t = 1 / (1 + z / 2),
// relative error below 1.2e-7 (Numerical Recipes, section 6.2).
static inline float upper_tail(float z) {
  const float t = 1.0f / (1.0f + 0.5f * z);
  float p = 0.17087277f;
  p = p * t - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  return t * expf(p - z * z);
}

extern "C" void scale_gelu_sum(const float* x, float* out, int64_t rows, int64_t columns,
                               double scale) {
  const float factor = static_cast<float>(scale);
  #pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * columns;
    float total = 0;
    #pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < columns; ++i) {
      const float v = row[i] * factor;
      const float half = 0.5f * upper_tail(fabsf(v) * 0.70710678118f);
      total += v * (v > 0 ? 1.0f - half : half);
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
