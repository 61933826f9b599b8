"""What a drop-in keeps is its own, and the kernel sees it however it came."""

import copy
import io
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.tools.drop_in.pairs import Model, NormModel, calls, pair


def test_its_weights_are_drawn_as_the_references_are(kernel: ModuleType) -> None:
    torch.manual_seed(7)
    expected = [Model(5).shift, torch.rand(3)]
    torch.manual_seed(7)
    made = [kernel.ModelNew(5).shift, torch.rand(3)]
    assert all(map(torch.equal, made, expected))


def test_new_weights_reach_the_kernel_however_they_come(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x = torch.randn(9, 5)

    def agree() -> None:
        with torch.no_grad():
            number, made = calls(kernel, lambda: new(x))
            assert number == 1
            torch.testing.assert_close(made, x * 3.0 + new.shift)

    agree()
    with torch.no_grad():
        new.shift.add_(1.0)
    agree()
    new.load_state_dict(Model(5).state_dict())
    agree()
    new.shift = torch.nn.Parameter(torch.randn(5))
    agree()
    new.to(torch.float64).to(torch.float32)
    agree()
    assert list(new.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("copied", ["deepcopy", "file"])
def test_a_copy_has_weights_of_its_own(kernel: ModuleType, copied: str) -> None:
    new = kernel.ModelNew(5)
    x = torch.randn(9, 5)
    with torch.no_grad():
        before = new(x)
    if copied == "deepcopy":
        other = copy.deepcopy(new)
    else:
        file = io.BytesIO()
        torch.save(new, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    with torch.no_grad():
        other.shift.zero_()
        number, made = calls(kernel, lambda: other(x))
        assert number == 1
        torch.testing.assert_close(made, x * 3.0)
        torch.testing.assert_close(new(x), before)


@pytest.mark.parametrize("way", ["kernel", "gradients", "compiled"])
def test_what_forward_changes_in_its_module_changes(norm: ModuleType, way: str) -> None:
    model, new = pair(norm, NormModel, 4)
    call = torch.compile(new, fullgraph=True, backend="aot_eager") if way == "compiled" else new
    for _ in range(3):
        x = torch.randn(8, 4)
        with torch.set_grad_enabled(way == "gradients"):
            number, made = calls(norm, lambda x=x: call(x))
            assert number == 1
            for one, other in zip(made, model(x), strict=True):
                torch.testing.assert_close(one, other)
        if way == "gradients":
            made[0].square().sum().backward()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(new.state_dict()[name], value)


def test_first_calls_of_many_threads_have_the_weights(kernel: ModuleType) -> None:
    x = torch.randn(9, 5)
    for _ in range(30):
        model, new = pair(kernel)
        expected = model(x).detach()
        gate = threading.Barrier(4)

        def call(_: int, new: Any = new, gate: Any = gate) -> torch.Tensor:
            gate.wait()
            with torch.no_grad():
                made: torch.Tensor = new(x)
            return made

        with ThreadPoolExecutor(4) as pool:
            for made in pool.map(call, range(4)):
                torch.testing.assert_close(made, expected)


def test_constructing_one_leaves_others_random_numbers_alone(kernel: ModuleType) -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    kernel.ModelNew(5)
    assert random.random() == expected
