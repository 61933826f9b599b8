"""What a module holds, and what becomes of a worn kernel once that has changed."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tools.wear.kernels import Head, calls
from tools.wear import load_kernel, wear


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


def test_weights_that_are_exchanged_reach_the_kernel(
    worn: tuple[Head, Head, torch.nn.Module],
) -> None:
    fast, _, kernel = worn
    x = torch.randn(8, 4)
    with torch.no_grad():
        fast.linear.weight = torch.nn.Parameter(torch.ones(3, 4))
        torch.testing.assert_close(fast(x), torch.nn.functional.linear(x, *fast.parameters()))
        fast.load_state_dict({"linear.weight": torch.zeros(3, 4), "linear.bias": torch.ones(3)},
                             assign=True)  # fmt: skip
        assert torch.equal(fast(x), torch.ones(8, 3))
        assert calls(kernel) == 2
        fast.linear.double()
        assert fast(x.double()).dtype == torch.float64
    assert calls(kernel) == 2


def test_a_part_in_another_mode_is_the_originals(worn: tuple[Head, Head, torch.nn.Module]) -> None:
    fast, _, kernel = worn
    fast.linear.eval()
    with torch.no_grad():
        fast(torch.randn(8, 4))
    assert calls(kernel) == 0


SHIFT = """
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        ModelNew.calls = getattr(ModelNew, "calls", 0) + 1
        return x.detach() + 1.0
"""


def test_a_function_that_closes_over_a_tensor_is_the_original_once_that_has_changed(
    tmp_path: Path,
) -> None:
    (tmp_path / "kernel.py").write_text(SHIFT)
    kernel, w = load_kernel(tmp_path / "kernel.py"), torch.nn.Parameter(torch.ones(4))
    x = torch.randn(2, 4)
    fast = wear(lambda x: x + w, kernel, (x,))
    with torch.no_grad():
        assert torch.equal(fast(x), x + 1.0)
        assert calls(kernel) == 1
    fast(x).sum().backward()
    assert w.grad is not None
    assert torch.equal(w.grad, torch.full((4,), 2.0))
    with torch.no_grad():
        w.mul_(2.0)
        assert torch.equal(fast(x), x + 2.0)
    assert calls(kernel) == 1


def exchange(head: Head) -> None:
    head.linear = torch.nn.Linear(4, 3)


def add(head: Head) -> None:
    head.further = torch.nn.ReLU()


def listen(head: Head) -> None:
    head.linear.register_forward_hook(lambda *_: None)


def set_a_value(head: Head) -> None:
    head.linear.in_features = 5


@pytest.mark.parametrize("change", [exchange, add, listen, set_a_value])
def test_a_module_that_was_changed_in_more_than_its_tensors_is_the_original(
    worn: tuple[Head, Head, torch.nn.Module], change: Callable[[Head], None]
) -> None:
    fast, _, kernel = worn
    x = torch.randn(8, 4)
    with torch.no_grad():
        fast(x)
        before = calls(kernel)
        assert before
        change(fast)
        assert torch.equal(fast(x), fast.linear(x))
    assert calls(kernel) == before


EMBED = """
import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(5, 4)

    def forward(self, x):
        ModelNew.calls = getattr(ModelNew, "calls", 0) + 1
        return self.table.weight.detach()[x]
"""


class Table(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table(x)


def lay_otherwise(module: Table) -> None:
    module.table.weight.data = module.table.weight.data.t().contiguous().t()


@pytest.mark.parametrize("change", [torch.nn.Module.double, torch.nn.Module.half, lay_otherwise])
def test_weights_that_became_others_in_place_are_the_originals(
    tmp_path: Path, change: Callable[[torch.nn.Module], object]
) -> None:
    (tmp_path / "kernel.py").write_text(EMBED)
    kernel, x = load_kernel(tmp_path / "kernel.py"), torch.tensor([1, 2])
    fast = wear(Table(), kernel, (x,))
    with torch.no_grad():
        fast(x)
        change(fast)
        assert torch.equal(fast(x), fast.table.weight[x])
    assert calls(kernel) == 1


REMEMBER = """
import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x):
        self.total = self.total + x
        return x * 1
"""


class Remember(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        return x * 1


def test_a_buffer_in_whose_place_the_kernel_puts_another_has_its_value(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(REMEMBER)
    module = Remember()
    fast = wear(module, load_kernel(tmp_path / "kernel.py"), (torch.ones(4),))
    for _ in range(2):
        fast(torch.ones(4))
    assert torch.equal(module.total, torch.full((4,), 2.0))
    assert fast.total is module.total


PLAIN = """
import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.full((4,), 2.0))

    def forward(self, x):
        ModelNew.calls = getattr(ModelNew, "calls", 0) + 1
        return x.detach() * self.scale.detach()
"""


class Plain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.full((4,), 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def test_a_plain_tensor_that_changed_or_is_trained_is_the_originals(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(PLAIN)
    kernel, x = load_kernel(tmp_path / "kernel.py"), torch.randn(4)
    fast = wear(Plain(), kernel, (x,))
    assert torch.equal(fast(x), x * 2)
    assert calls(kernel) == 1
    fast.scale.requires_grad_()
    fast(x).sum().backward()
    torch.testing.assert_close(fast.scale.grad, x)
    with torch.no_grad():
        fast.scale.mul_(2)
        assert torch.equal(fast(x), x * 4)
        fast.scale = torch.ones(4)
        assert torch.equal(fast(x), x)
    assert calls(kernel) == 1


def test_a_copy_of_a_worn_module_is_apart(worn: tuple[Head, Head, torch.nn.Module]) -> None:
    fast, head, kernel = worn
    x = torch.randn(8, 4)
    other = copy.deepcopy(fast)
    with torch.no_grad():
        other.linear.weight.zero_()
        assert torch.equal(other(x), head.linear.bias.expand(8, 3))
        torch.testing.assert_close(fast(x), head(x))
        assert calls(kernel) == 2
        other.linear.in_features = 5
        other(x)
        fast(x)
    assert calls(kernel) == 3
