"""A kernel worn by a function or module: at work where it was verified, out of the way if not."""

import copy
from collections.abc import Callable
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


def test_an_argument_that_was_left_out_when_verified_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(DOUBLE.replace("x, factor", "x").replace("factor", "2"))
    kernel, x = load_kernel(tmp_path / "kernel.py"), torch.randn(4)
    fast = wear(double, kernel, (x,))
    assert torch.equal(fast(x), x * 2)
    assert torch.equal(fast(x, factor=3), x * 3)
    assert torch.equal(fast(x=x), x * 2)
    assert calls(kernel) == 2


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


def test_backward_is_as_exact_as_forward_was(worn: tuple[Head, Head, torch.nn.Module]) -> None:
    fast, head, _ = worn
    x = torch.randn(8, 4)
    head = copy.deepcopy(head)
    head(x).square().sum().backward()
    loss = fast(x).square().sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss.backward()
    assert torch.equal(fast.linear.weight.grad, head.linear.weight.grad)


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


def test_what_is_yet_to_be_negated_is_the_originals(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(DOUBLE.replace("x, factor", "x").replace("factor", "2"))
    kernel = load_kernel(tmp_path / "kernel.py")
    z = torch.randn(4, dtype=torch.complex64)
    for given in (z.conj(), z.conj().imag):
        x = given.resolve_conj().resolve_neg().contiguous()
        fast = wear(
            lambda x: x * 2, kernel, (torch.empty_strided(x.shape, given.stride(), dtype=x.dtype),)
        )
        before = calls(kernel)
        assert torch.equal(fast(given), x * 2)
        assert calls(kernel) == before


def test_arguments_that_are_packed_otherwise_are_the_originals(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(
        "import torch\n\n\nclass ModelNew(torch.nn.Module):\n    def forward(self, a, b):\n"
        "        ModelNew.calls = getattr(ModelNew, 'calls', 0) + 1\n        return sum(a) - b\n"
    )

    def subtract(a: object, b: object) -> torch.Tensor:
        one = sum(a) if isinstance(a, list) else a
        other = sum(b) if isinstance(b, list) else b
        return one - other  # type: ignore[no-any-return, operator]

    kernel = load_kernel(tmp_path / "kernel.py")
    x, y, z = torch.randn(3, 4)
    fast = wear(subtract, kernel, ([x, y], z))
    assert torch.equal(fast([x, y], z), x + y - z)
    assert calls(kernel) == 1
    assert torch.equal(fast(x, [y, z]), x - (y + z))
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
