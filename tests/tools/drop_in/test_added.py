"""What is added to a part of a drop-in is called: the reference answers from then on."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.tools.drop_in.pairs import calls
from tests.tools.shipping import shipment, shipped
from tools.candidate import Candidate
from tools.signature import Signature, Slot

BODY_REFERENCE = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.ReLU(), Scaled())

    def forward(self, x):
        return self.body(x)

class Scaled(torch.nn.Module):
    by = 2.0

    def forward(self, x):
        return x * self.by

def get_inputs():
    return [torch.randn(6)]
"""
BODY_KERNEL = """
import torch

CALLS = []

class ModelNew(torch.nn.Module):
    def forward(self, x):
        CALLS.append(tuple(x.shape))
        return x.clamp(min=0) * 2
"""


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    slot = Slot(dtype="float32", sizes=(6,))
    return shipped(tmp_path_factory.mktemp("body"), shipment(
        candidate=Candidate(source=BODY_KERNEL, backend="torch"), reference=BODY_REFERENCE,
        subject="body",
        signatures=(Signature(device="cpu", inputs=(slot,), outputs=(slot,), aligned=False),),
    ))  # fmt: skip


def append(new: Any) -> None:
    new.body.append(torch.nn.Tanh())


def append_what_is_there(new: Any) -> None:
    new.body.append(new.body[1])


def add_to_a_part(new: Any) -> None:
    new.body[0].add_module("further", torch.nn.Tanh())


def add_to_the_model(new: Any) -> None:
    new.add_module("further", torch.nn.Tanh())


def set_over_the_class(new: Any) -> None:
    new.body[1].by = 3.0


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("when", ["before anybody called", "after a call", "before it is compiled"])
@pytest.mark.parametrize(
    "change",
    [append, append_what_is_there, add_to_a_part, add_to_the_model, set_over_the_class],
)
def test_what_was_added_to_a_part_is_seen(
    body: ModuleType, change: Callable[[Any], None], when: str
) -> None:
    new, x = body.ModelNew(), torch.randn(6)
    if when == "after a call":
        assert new.takes_kernel(x)
    change(new)
    call = new
    if when == "before it is compiled":
        call = torch.compile(new, fullgraph=True, backend="eager")
    number, made = calls(body, lambda: call(x))
    assert number == 0
    assert torch.equal(made, new.body(x))


def test_a_hook_on_every_module_hears_the_parts(body: ModuleType) -> None:
    new, x = body.ModelNew(), torch.randn(6)
    heard: list[Any] = []
    assert new.takes_kernel(x)
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: heard.append(type(module).__name__)
    )
    try:
        new(x)
    finally:
        hook.remove()
    assert heard == ["ReLU", "Scaled", "Sequential", "ModelNew"]
    assert new.takes_kernel(x)
