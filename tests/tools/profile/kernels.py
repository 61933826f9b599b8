"""Kernels that the ladder's tests look at."""

from tools.candidate import Candidate

REFERENCE = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2.0 + 1.0


def get_inputs():
    return [torch.rand(4096, 1024)]


def get_init_inputs():
    return []
"""
CPP = Candidate(
    backend="cpp",
    source='''
import torch

from tools.backends.cpp.loader import cpp_kernel

twice_kernel = cpp_kernel(
    """
#include <cstdint>
extern "C" void twice(const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * 2.0f + 1.0f;
}
""",
    "twice",
    "ppi",
)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        y = torch.empty_like(x)
        twice_kernel(x, y, x.numel())
        return y
''',
)
RAISES = Candidate(
    backend="torch",
    source="""
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("no forward today")
""",
)
TRITON = Candidate(
    backend="triton",
    source="""
import torch
import triton
import triton.language as tl


@triton.jit
def twice_kernel(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at, mask=at < n)
    tl.store(y + at, values * 2.0 + 1.0, mask=at < n)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        y = torch.empty_like(x)
        twice_kernel[(triton.cdiv(x.numel(), 1024),)](x, y, x.numel(), BLOCK=1024)
        return y
""",
)
