"""A kernel worn by a function or module: at work where it was verified, out of the way if not."""

import copy
from pathlib import Path

import pytest
import torch

from tools.wear import load_kernel, wear

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


def double(x: torch.Tensor, factor: int = 2) -> torch.Tensor:
    """Documented."""
    return x * factor


@pytest.fixture
def worn(tmp_path: Path) -> tuple[Head, Head, torch.nn.Module]:
    (tmp_path / "kernel.py").write_text(LINEAR)
    kernel, head = load_kernel(tmp_path / "kernel.py"), Head()
    return wear(head, kernel, (torch.randn(8, 4),)), head, kernel


def calls(kernel: torch.nn.Module) -> int:
    return getattr(type(kernel), "calls", 0)


def test_a_module_keeps_its_class_and_its_own_parameters(
    worn: tuple[Head, Head, torch.nn.Module],
) -> None:
    fast, head, kernel = worn
    assert isinstance(fast, Head)
    assert all(
        one is other for one, other in zip(fast.parameters(), head.parameters(), strict=True)
    )
    assert set(fast.state_dict()) == set(head.state_dict())
    x = torch.randn(8, 4)
    with torch.no_grad():
        head.linear.weight.mul_(2)
        torch.testing.assert_close(fast(x), head(x))
    assert calls(kernel) == 1


def test_elsewhere_the_original_does_the_work(worn: tuple[Head, Head, torch.nn.Module]) -> None:
    fast, head, kernel = worn
    with torch.no_grad():
        for x in (torch.randn(7, 4), torch.randn(4, 8).t(), torch.randn(8, 4)[None]):
            torch.testing.assert_close(fast(x), head(x))
        fast.eval()
        fast(torch.randn(8, 4))
    assert calls(kernel) == 0


def test_gradients_are_the_originals(worn: tuple[Head, Head, torch.nn.Module]) -> None:
    fast, head, kernel = worn
    x = torch.randn(8, 4, requires_grad=True)
    other, y = copy.deepcopy(head), x.detach().clone().requires_grad_()
    (fast(x * 3) ** 2).sum().backward()
    (other(y * 3) ** 2).sum().backward()
    assert calls(kernel) == 1
    torch.testing.assert_close(x.grad, y.grad)
    for one, same in zip(head.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, same.grad)


def test_a_function_keeps_its_name_and_its_ways_of_being_called(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(DOUBLE)
    kernel, x = load_kernel(tmp_path / "kernel.py"), torch.randn(4)
    fast = wear(double, kernel, (x, 2))
    assert (fast.__name__, fast.__doc__) == ("double", "Documented.")
    assert torch.equal(fast(x, 2), x * 2)
    assert torch.equal(fast(x=x, factor=2), x * 2)
    assert torch.equal(fast(factor=2, x=x), x * 2)
    assert calls(kernel) == 3
    # A number is part of what was verified: with another one the original works.
    assert torch.equal(fast(x, 3), x * 3)
    assert torch.equal(fast(x), x * 2)
    assert calls(kernel) == 3


def test_two_kernels_of_one_file_are_apart(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(DOUBLE)
    one, other = load_kernel(tmp_path / "kernel.py"), load_kernel(tmp_path / "kernel.py")
    one(torch.ones(2), 2)
    assert (calls(one), calls(other)) == (1, 0)
