"""What `optimize` gives back is the kernel only as long as that is of what was given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graph.result import Result
from tests.graph import builders
from tools.export import REBUILT
from tools.verdict import CaseResult

KERNEL = """
import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x):
        return torch.full((8, 3), 7.0)
"""
X = torch.randn(8, 4)


class Head(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.linear(x)
        return made


def result_on(head: Head, folder: Path, *cases: str) -> Result:
    """A result whose kernel gives sevens, so that a test knows it."""
    (folder / "best").mkdir()
    (folder / "best" / "kernel.py").write_text(KERNEL)
    found = builders.correct(builders.timing(4.0, confirmed=True))
    more = tuple(CaseResult(name=name, passed=True, worst=0.1) for name in cases)
    found = found.model_copy(update={"cases": (*found.cases, *more)})
    record = builders.record((builders.trial(1, found),), winner=1, confirmation=found)
    return Result(record.model_copy(update={"run_dir": str(folder)}), head, (X,))


def is_kernel(result: Result) -> bool:
    with torch.no_grad():
        return bool((result(X) == 7.0).all())


def test_what_was_given_is_worn_with_the_weights_that_it_has(tmp_path: Path) -> None:
    head = Head()
    result = result_on(head, tmp_path)
    head.linear.weight.data.add_(1.0)
    assert is_kernel(result)
    assert result.module.linear.weight is head.linear.weight


def listen(head: Head) -> Any:
    return head.linear.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.eval(),
        lambda head: setattr(head.linear, "out_features", 4),
        lambda head: head.add_module("further", torch.nn.ReLU()),
    ],
)
def test_what_changed_before_its_first_use_is_the_original(
    tmp_path: Path, change: Callable[[Head], Any]
) -> None:
    head = Head()
    result = result_on(head, tmp_path)
    change(head)
    assert not is_kernel(result)
    assert result.module is head


def test_a_kernel_may_do_what_a_hook_did_that_is_gone(tmp_path: Path) -> None:
    head = Head()
    hook = listen(head)
    result = result_on(head, tmp_path)
    hook.remove()
    assert not is_kernel(result)


def test_a_hook_that_came_and_went_does_not_matter(tmp_path: Path) -> None:
    head = Head()
    result = result_on(head, tmp_path)
    hook = listen(head)
    assert not is_kernel(result)
    hook.remove()
    assert is_kernel(result)


@pytest.mark.parametrize("case", [REBUILT, f"long: {REBUILT}"])
def test_a_kernel_that_can_not_be_given_the_weights_is_not_worn(tmp_path: Path, case: str) -> None:
    assert not is_kernel(result_on(Head(), tmp_path, case))
