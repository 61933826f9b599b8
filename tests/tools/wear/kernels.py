"""Modules and functions to be worn by, and kernels that count their calls."""

import torch

# Right but for a mark by which a test knows that the kernel ran.
LINEAR = """
import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x):
        ModelNew.calls = getattr(ModelNew, "calls", 0) + 1
        return torch.addmm(self.linear.bias.detach(), x.detach(), self.linear.weight.detach().t())
"""


DOUBLE = """
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x, factor):
        ModelNew.calls = getattr(ModelNew, "calls", 0) + 1
        return x.detach() * factor
"""


class Head(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def calls(kernel: torch.nn.Module) -> int:
    return getattr(type(kernel), "calls", 0)
