"""Gradients through a worn kernel are the original's."""

import copy
from pathlib import Path

import pytest
import torch

from tests.tools.wear.kernels import LINEAR, Head, calls
from tools.wear import load_kernel, wear


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


NORM = """
import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, x):
        with torch.no_grad():
            y = self.norm(x)
        return [y, y + 1]
"""


class Norm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        y = self.norm(x)
        return [y, y + 1]


def test_a_training_step_updates_what_it_updates_once(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(NORM)
    module, x = Norm(), torch.randn(16, 4)
    other = copy.deepcopy(module)
    fast = wear(module, load_kernel(tmp_path / "kernel.py"), (x,))
    for one in (fast, other):
        made = one(x)
        assert isinstance(made, list)
        (made[0] * made[1] ** 2).sum().backward()
    for a, b in zip(module.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_gradients_have_gradients(worn: tuple[Head, Head, torch.nn.Module]) -> None:
    fast, head, _ = worn
    x = torch.randn(8, 4, requires_grad=True)

    def second(module: torch.nn.Module) -> torch.Tensor:
        (first,) = torch.autograd.grad((module(x) ** 3).sum(), x, create_graph=True)
        (again,) = torch.autograd.grad((first**2).sum(), x)
        return again

    torch.testing.assert_close(second(fast), second(copy.deepcopy(head)))


def test_what_was_changed_since_forward_has_no_silent_gradient(
    worn: tuple[Head, Head, torch.nn.Module],
) -> None:
    fast, _, _ = worn
    x = torch.randn(8, 4, requires_grad=True)
    made = fast(x).sum()
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="in-place"):
        made.backward()


def test_what_writes_to_its_arguments_is_not_run_twice_for_gradients(tmp_path: Path) -> None:
    def add_to(total: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        total.add_(x.detach())
        return x * 2

    (tmp_path / "kernel.py").write_text(
        "import torch\n\n\nclass ModelNew(torch.nn.Module):\n    def forward(self, total, x):\n"
        "        total.add_(x.detach())\n        return x.detach() * 2\n"
    )
    total, x = torch.zeros(4), torch.ones(4, requires_grad=True)
    kernel = load_kernel(tmp_path / "kernel.py")
    fast = wear(add_to, kernel, (total, x), in_place=True)
    fast(total, x).sum().backward()
    assert torch.equal(total, torch.ones(4))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full((4,), 2.0))


def test_backward_is_as_exact_as_forward_was(worn: tuple[Head, Head, torch.nn.Module]) -> None:
    fast, head, _ = worn
    x = torch.randn(8, 4)
    head = copy.deepcopy(head)
    head(x).square().sum().backward()
    loss = fast(x).square().sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss.backward()
    assert torch.equal(fast.linear.weight.grad, head.linear.weight.grad)


BESIDE = LINEAR.replace("return torch.addmm(", "return None, torch.addmm(")


class Beside(Head):
    def forward(self, x: torch.Tensor) -> tuple[None, torch.Tensor]:  # type: ignore[override]
        return None, self.linear(x)


def test_none_beside_a_tensor_is_returned_and_has_no_gradient(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(BESIDE)
    kernel, head = load_kernel(tmp_path / "kernel.py"), Beside()
    module = wear(head, kernel, (torch.randn(8, 4),))
    x = torch.randn(8, 4, requires_grad=True)
    nothing, made = module(x)
    assert calls(kernel) == 1
    assert nothing is None
    (grown,) = torch.autograd.grad(made.sum(), x)
    torch.testing.assert_close(grown, head.linear.weight.sum(0).expand(8, 4))
