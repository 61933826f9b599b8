"""What is taken from a live process runs by itself, and gives what the original gives."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from knowledge.errors import BadInput
from tools.capture import take
from tools.reference import load

SCALE = 0.5
AXIS = -1


def softly(values: torch.Tensor, axis: int) -> torch.Tensor:
    return F.softmax(values * SCALE, dim=axis)


def uses_a_helper(x: torch.Tensor, y: torch.Tensor, power: float = 2.0) -> torch.Tensor:
    """Reads a constant, a module, another function; has a default."""
    return softly(x + y, AXIS) ** power / math.sqrt(x.shape[-1])


def made_inside(weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def product(x: torch.Tensor) -> torch.Tensor:
        return x @ weight

    return product


class ByValue(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class Named(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": x + 1}


def counting(total: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def count(x: torch.Tensor) -> torch.Tensor:
        total.add_(x.sum())
        return x * total

    return count


def add_to(total: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    total.add_(x)
    return total * 2


class AddTo(torch.nn.Module):
    def forward(self, total: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return add_to(total, x)


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
        self.register_buffer("shift", torch.arange(8.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.layers(x)) + self.shift


def remade(subject: Any, inputs: tuple[Any, ...], folder: Path) -> torch.nn.Module:
    """The reference's module, executed from its file alone."""
    taken = take(subject, inputs, folder)
    loaded = load(taken.reference.read_text(), str(taken.reference))
    drawn = loaded.inputs(0)
    assert [one.shape for one in drawn if isinstance(one, torch.Tensor)] == [
        one.shape for one in inputs if isinstance(one, torch.Tensor)
    ]
    return loaded.build(0)


FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "a function that uses others": (
        uses_a_helper, (torch.randn(4, 8), torch.randn(4, 8)), "its own source",
    ),
    "a lambda": (lambda x: (x * SCALE).relu(), (torch.randn(4, 8),), "its own source"),
    "a closure over a number": (
        (lambda k: lambda x: x * k)(3), (torch.randn(4),), "its own source",
    ),
    "a closure over a tensor": (made_inside(torch.randn(8, 3)), (torch.randn(4, 8),), "its graph"),
    "a builtin of torch's": (F.gelu, (torch.randn(4, 8),), "its graph"),
}  # fmt: skip


@pytest.mark.parametrize(("subject", "inputs", "how"), FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_a_function_is_taken(
    tmp_path: Path, subject: Any, inputs: tuple[Any, ...], how: str
) -> None:
    module = remade(subject, inputs, tmp_path)
    assert how in (tmp_path / "reference.py").read_text()
    torch.testing.assert_close(module(*inputs), subject(*inputs))


@pytest.mark.parametrize("training", [True, False])
def test_a_module_is_taken_with_its_weights_and_its_mode(tmp_path: Path, training: bool) -> None:
    module = Block().train(training)
    with torch.no_grad():
        module.layers[0].weight.fill_(0.25)
    inputs = (torch.randn(4, 8),)
    again = remade(module, inputs, tmp_path)
    torch.testing.assert_close(again(*inputs), module(*inputs))
    assert again.training == training
    assert set(again.state_dict()) == set(module.state_dict())


def test_a_transformer_layer_is_taken_as_its_calls(tmp_path: Path) -> None:
    layer = torch.nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).eval()
    inputs = (torch.randn(2, 5, 8),)
    again = remade(layer, inputs, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(*inputs), layer(*inputs), rtol=1e-4, atol=1e-5)
    assert "_transformer_encoder_layer" not in (tmp_path / "reference.py").read_text()


@pytest.mark.parametrize("subject", [add_to, lambda a, b: add_to(a, b), AddTo()])
def test_what_writes_to_its_arguments_is_taken_so(tmp_path: Path, subject: Any) -> None:
    total, x = torch.ones(4), torch.randn(4)
    again = remade(subject, (total, x), tmp_path)
    assert torch.equal(total, torch.ones(4))
    assert torch.equal(again(total, x), (1 + x) * 2)
    assert torch.equal(total, 1 + x)


def test_a_modules_own_hooks_are_left_to_whatever_takes_its_place(tmp_path: Path) -> None:
    module, x = Block(), torch.randn(4, 8)
    expected = module(x)
    module.register_forward_hook(lambda _, given, made: made * 2)
    module.register_forward_pre_hook(lambda _, given: (given[0] + 1,))
    torch.testing.assert_close(remade(module, (x,), tmp_path)(x), expected)
    assert len(module._forward_hooks) == len(module._forward_pre_hooks) == 1


def test_none_beside_a_tensor_is_taken_too(tmp_path: Path) -> None:
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()

    class Attends(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            return self.attention(x, x, x, need_weights=False)

    inputs = (torch.randn(2, 5, 8),)
    again = remade(Attends().eval(), inputs, tmp_path)
    with torch.no_grad():
        (made, nothing), (expected, _) = again(*inputs), attention(*inputs * 3, need_weights=False)
    assert nothing is None
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


def test_without_its_weights_file_it_still_stands(tmp_path: Path) -> None:
    remade(Block().eval(), (torch.randn(4, 8),), tmp_path)
    (tmp_path / "state.safetensors").unlink()
    text = (tmp_path / "reference.py").read_text()
    alone = load(text, "reference.py").build(0)
    assert alone(torch.randn(4, 8)).isfinite().all()


def test_taking_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(8)).train()
    before = {name: one.clone() for name, one in module.state_dict().items()}
    remade(module, (torch.randn(16, 8),), tmp_path)
    for name, one in module.state_dict().items():
        torch.testing.assert_close(one, before[name])


def test_inputs_are_drawn_like_the_examples(tmp_path: Path) -> None:
    examples = [
        torch.rand(64, 64) * 5,
        torch.randint(3, 17, (64,)),
        torch.randn(64, 64) * 10 + 100,
        torch.rand(64) < 0.1,
        torch.randn(8, 16, dtype=torch.float64).t(),
        7,
    ]
    source = take(lambda a, b, c, d, e, n: a * n, examples, tmp_path).reference
    drawn = load(source.read_text(), str(source)).inputs(0)
    assert 0 <= drawn[0].min() <= drawn[0].max() <= 5.1
    assert 3 <= drawn[1].min() <= drawn[1].max() < 17
    assert abs(drawn[2].mean() - 100) < 1
    assert drawn[3].dtype == torch.bool
    assert (drawn[4].stride(), drawn[4].dtype) == (examples[4].stride(), torch.float64)
    assert drawn[5] == 7


def test_inputs_may_be_named(tmp_path: Path) -> None:
    given = {"y": torch.zeros(4, 8), "x": torch.randn(4, 8)}
    text = take(uses_a_helper, given, tmp_path).reference.read_text()
    assert "torch.full([4, 8], 0.0" in text


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "what hangs on values": (ByValue(), torch.randn(4), "torch.export can't make a graph"),
    "a class": (Block, torch.randn(4, 8), "an instance of a torch.nn.Module"),
    "no tensor": (abs, 3, "are a int"),
    "a list without one": (abs, [3], "hold no tensor"),
    "names that don't fit": (softly, {"z": torch.randn(4)}, "don't fit softly"),
    "a dictionary returned": (Named(), torch.randn(4, 4), "returns something else"),
    "what writes to a tensor that it closes over": (
        counting(torch.ones(())), torch.randn(4), "torch.export can't make a graph",
    ),
    "an object among the inputs": (softly, (torch.randn(4), object()), "can't be written down"),
}  # fmt: skip


@pytest.mark.parametrize(("subject", "inputs", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cant_be_taken_is_said_in_one_line(
    tmp_path: Path, subject: Any, inputs: Any, told: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        take(subject, inputs, tmp_path / "taken")
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "taken").exists()
