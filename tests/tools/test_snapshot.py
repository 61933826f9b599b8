"""Whatever a kernel has in its code of a live function or module is seen to change."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tools.snapshot import Snapshot

SCALE = 0.5
ROW = [1.0, 2.0]
LINEAR = torch.nn.Linear(4, 4)
# Is nowhere read by that name: what has it below are tensors.
shape = 3

Change = Callable[[], Any]


class Block(torch.nn.Module):
    slope = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
        self.sizes = [4, 4]
        self.shift = torch.zeros(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) * self.slope * SCALE + self.shift


class Op:
    def __init__(self) -> None:
        self.by = 2.0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.by

    def more(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.by


def scaled(x: torch.Tensor) -> torch.Tensor:
    return x * SCALE


def times(by: Any) -> Any:
    return lambda x: x * by


def exchange_cell(function: Any, value: Any) -> None:
    function.__closure__[0].cell_contents = value


Case = Callable[[pytest.MonkeyPatch], tuple[Any, Change]]


def of_function(function: Any, change: Change) -> Case:
    return lambda _: (function, change)


def of_file(function: Any, name: str, value: Any) -> Case:
    return lambda patch: (function, lambda: patch.setitem(globals(), name, value))


def of_closure(value: Any, change: Callable[[Any], Any]) -> Case:
    return lambda _: (times(value), lambda: change(value))


def a_number_in_a_closure(_: pytest.MonkeyPatch) -> tuple[Any, Change]:
    function = times(2.0)
    return function, lambda: exchange_cell(function, 3.0)


def another_tensor_in_a_closure(_: pytest.MonkeyPatch) -> tuple[Any, Change]:
    function = times(torch.ones(4))
    return function, lambda: exchange_cell(function, torch.ones(4))


def an_object_that_is_called(_: pytest.MonkeyPatch) -> tuple[Any, Change]:
    op = Op()
    return op, lambda: setattr(op, "by", 3.0)


def a_method(_: pytest.MonkeyPatch) -> tuple[Any, Change]:
    op = Op()
    return op.more, lambda: setattr(op, "by", 3.0)


def a_part_of_another(_: pytest.MonkeyPatch) -> tuple[Any, Change]:
    w = torch.ones(4)
    return functools.partial(torch.mul, w), lambda: w.add_(1)


def a_default(_: pytest.MonkeyPatch) -> tuple[Any, Change]:
    w = torch.ones(4)

    def function(x: torch.Tensor, by: torch.Tensor = w) -> torch.Tensor:
        return x * by

    return function, lambda: w.add_(1)


FUNCTIONS: dict[str, Case] = {
    "a number of its file": of_file(lambda x: x * SCALE, "SCALE", 0.7),
    "a number that another function reads": of_file(lambda x: scaled(x), "SCALE", 0.7),
    "another function": of_file(lambda x: scaled(x), "scaled", lambda x: x),
    "a list of its file": of_file(lambda x: x * ROW[0], "ROW", [3.0, 4.0]),
    "an item of a list": of_closure([1.0, 2.0], lambda row: row.append(3.0)),
    "a tensor that is written to": of_closure(torch.ones(4), lambda w: w.add_(1)),
    "a tensor in a dict": of_closure({"w": torch.ones(4)}, lambda held: held["w"].add_(1)),
    "a module's mode": of_closure(torch.nn.Linear(4, 4), lambda module: module.eval()),
    "a module's number": of_closure(torch.nn.ELU(), lambda module: setattr(module, "alpha", 2.0)),
    "a module's weight": of_closure(
        torch.nn.Linear(4, 4), lambda module: setattr(module, "bias", None)
    ),
    "a module of its file": of_file(lambda x: LINEAR(x), "LINEAR", torch.nn.Linear(4, 4)),
    "a number in a closure": a_number_in_a_closure,
    "another tensor in a closure": another_tensor_in_a_closure,
    "an object that is called": an_object_that_is_called,
    "a method": a_method,
    "a part of another": a_part_of_another,
    "a default": a_default,
}


@pytest.mark.parametrize("case", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_what_a_function_reads_is_seen_to_change(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, change = case(monkeypatch)
    then = Snapshot(function)
    assert then.same()
    change()
    assert not then.same()


@pytest.mark.parametrize(
    "case",
    [
        of_file(lambda x: x * SCALE, "SCALE", 0.25 + 0.25),
        of_file(lambda x: x.shape[0], "shape", 4),
        of_file(lambda x: torch.relu(x), "unknown", 1),
    ],
    ids=["the same number", "an attribute of that name", "a name that nobody reads"],
)
def test_what_makes_no_difference_is_no_change(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    function, change = case(monkeypatch)
    then = Snapshot(function)
    change()
    assert then.same()


def exchange_a_part(block: Block) -> None:
    block.body[0] = torch.nn.Linear(4, 4)


def exchange_a_plain_tensor(block: Block) -> None:
    block.shift = torch.zeros(4)


MODULES: dict[str, Callable[[Block], Any]] = {
    "a part that is added": lambda block: block.body.append(torch.nn.Tanh()),
    "a part that is there twice": lambda block: block.body.append(block.body[1]),
    "a part that is gone": lambda block: block.body.pop(1),
    "another part": exchange_a_part,
    "its mode": lambda block: block.eval(),
    "the mode of a part": lambda block: block.body[1].eval(),
    "a value of a part": lambda block: setattr(block.body[0], "in_features", 5),
    "a value of its own in the place of its class's": lambda block: setattr(block, "slope", 0.2),
    "an item of a list": lambda block: block.sizes.append(3),
    "a plain tensor that is written to": lambda block: block.shift.add_(1),
    "another plain tensor": exchange_a_plain_tensor,
}


@pytest.mark.parametrize("change", MODULES.values(), ids=MODULES.keys())
def test_what_a_module_is_beside_its_weights_is_seen_to_change(
    change: Callable[[Block], Any],
) -> None:
    block = Block()
    then = Snapshot(block)
    block.body[0].weight.data.add_(1.0)
    block.body[0].bias = torch.nn.Parameter(torch.zeros(4))
    assert then.same()
    of_a_copy, then_too = copy.deepcopy((block, then))
    assert then_too.same()
    change(block)
    assert not then.same()
    assert then_too.same()
    # What was changed before it was copied is changed.
    assert not copy.deepcopy((block, then))[1].same()
    change(of_a_copy)
    assert not then_too.same()


def test_what_forward_reads_of_its_file_is_seen_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Block()
    then, of_a_copy = Snapshot(block), copy.deepcopy(Snapshot(block))
    assert then.same()
    assert of_a_copy.same()
    monkeypatch.setitem(globals(), "SCALE", 0.7)
    assert not then.same()
    assert not of_a_copy.same()


def test_a_hook_is_no_change_and_is_heard() -> None:
    block = Block()
    then = Snapshot(block)
    hook = block.body[0].register_forward_hook(lambda *_: None)
    assert then.same()
    assert not then.unheard()
    assert Snapshot(block).heard
    hook.remove()
    assert then.unheard()
    # It is called around whatever is in the module's place, and by a function with the module.
    block.register_forward_hook(lambda *_: None)
    assert then.unheard()
    assert not Snapshot(lambda x: block(x)).unheard()


def test_tensors_that_a_kernel_has_by_value() -> None:
    block, w = Block(), torch.ones(4)
    assert Snapshot(block).tensors == [block.shift]
    held = Snapshot(lambda x: block(x) * w).tensors
    expected = [w, block.shift, *block.parameters()]
    assert sorted(map(id, held)) == sorted(map(id, expected))
