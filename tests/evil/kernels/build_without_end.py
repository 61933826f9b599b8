"""A template that instantiates itself without end, to keep the compiler busy for good (47)."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST, CAUGHT = "softmax", ("build_failed", "template instantiation depth")

SOURCE = r"""
template <int N> struct Tower { static const int height = Tower<N + 1>::height + 1; };
extern "C" void tower(int* y) { *y = Tower<0>::height; }
"""
tower = cpp_kernel(SOURCE, "tower", "p")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)
