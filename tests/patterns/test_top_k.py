"""The first of every row against torch, and what is refused."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.pattern import Refusal, Step, load_pattern
from tests.patterns.workshop import SITUATION, Built, build, complaints, function

TOP = (Step(pattern="top_k"),)
FEW = settings(max_examples=12, suppress_health_check=list(HealthCheck))


def picked_right(built: Built, x: torch.Tensor, picked: int, largest: bool = True) -> bool:
    """Whether values are torch's, and each place holds its value and stands there once."""
    values, places = built.candidate()(x)
    wanted = torch.topk(x, picked, dim=-1, largest=largest).values
    return (
        torch.allclose(values, wanted, rtol=0, atol=0, equal_nan=True)
        and torch.allclose(x.gather(-1, places), values, rtol=0, atol=0, equal_nan=True)
        and all(row.unique().numel() == picked for row in places.reshape(-1, picked))
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("length", "picked"), [(8, 2), (64, 2), (100, 7), (5000, 64), (3, 3)])
def test_the_first_of_every_row_are_torchs(
    dtype: str, largest: bool, length: int, picked: int
) -> None:
    call = f"tuple(torch.topk(x, {picked}, dim=-1, largest={largest}))"
    built = build(function("x", call, f"torch.randn(5, 3, {length}).to(torch.{dtype})"), TOP)
    assert not built.program.library_calls
    x = torch.randn(5, 3, length).to(getattr(torch, dtype))
    assert picked_right(built, x, picked, largest)
    x = x.round()
    x[0, 0, 1] = x[1, :, 0] = torch.nan
    x[1, 1], x[2, 0, :2] = torch.inf, -torch.inf
    x[2, 1] = -0.0
    x[3, 2] = torch.nan
    assert picked_right(built, x, picked, largest)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("call", ["max(x, -1)", "min(x, 2)", "max(x, -1, keepdim=True)"])
def test_an_extreme_with_its_place_is_the_first_of_equals(call: str, dtype: str) -> None:
    source = function("x", f"tuple(torch.{call})", f"torch.randn(5, 4, 70).to(torch.{dtype})")
    built = build(source, TOP)
    assert not built.program.library_calls
    x = torch.randn(5, 4, 70).mul(2).round().to(getattr(torch, dtype))
    x[0, 0, 5], x[0, 1, 3], x[0, 1, 60] = torch.nan, torch.nan, torch.nan
    x[1, 0], x[1, 0, 9], x[1, 1] = -0.0, 0.0, torch.inf
    x[1, 2], x[1, 2, 30] = 0.0, -0.0
    for mine, theirs in zip(built.candidate()(x), built.model(x), strict=True):
        assert mine.shape == theirs.shape
        assert torch.allclose(mine, theirs, rtol=0, atol=0, equal_nan=True)


@FEW
@given(st.integers(1, 40), st.integers(5, 700), st.booleans(), st.integers(1, 5))
def test_one_kernel_takes_rows_of_any_length_and_any_strides(
    rows: int, length: int, turned: bool, spread: int
) -> None:
    built = build(function("x", "tuple(torch.topk(x, 5))", "torch.randn(9, 64)"), TOP)
    x = torch.randn(length, rows).t() if turned else torch.randn(rows, 2 * length)[:, ::2]
    assert picked_right(built, (x * spread).round(), 5)


def test_rows_that_are_too_short_are_refused_by_name() -> None:
    built = build(function("x", "tuple(torch.topk(x, 5))", "torch.randn(9, 64)"), TOP)
    with pytest.raises(ValueError, match="rows should have 5 elements or more"):
        built.candidate()(torch.randn(9, 4))


@pytest.mark.parametrize(
    "text", ["torch.topk(x, 3)[0]", "torch.topk(x, 3)[1]", "torch.topk(x.exp(), 3)[0].sum(-1)"]
)
def test_what_nobody_reads_is_not_written(text: str) -> None:
    built = build(function("x", text, "torch.randn(40, 64)"), TOP)
    kernel = next(one for one in built.program.kernels if one.name.endswith("_rows"))
    assert len(kernel.writes) == 1
    assert complaints(built) == []


def test_what_stands_before_and_after_becomes_loops() -> None:
    picked = "torch.topk(torch.softmax(x + 1, -1), 2)"
    text = f"(lambda top: (top[0] / top[0].sum(-1, keepdim=True), top[1]))({picked})"
    built = build(function("x", text, "torch.randn(200, 64)"), (*TOP, Step(pattern="row_loop")))
    assert not built.program.library_calls
    assert complaints(built) == []


@pytest.mark.parametrize(
    ("expression", "inputs", "reason"),
    [
        ("torch.max(x, 0)[1]", "torch.randn(9, 8)", "another than the last dimension"),
        ("torch.topk(x, 3, dim=0)[0]", "torch.randn(9, 8)", "another than the last dimension"),
        ("torch.topk(x, 65)[0]", "torch.randn(3, 100)", "at most 64 are picked"),
        ("torch.topk(x, 2)[0]", "torch.randint(0, 9, (3, 8))", "rows of int64"),
        ("x + 1", "torch.randn(3, 8)", "the op selects nothing"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    expression: str, inputs: str, reason: str
) -> None:
    built = build(function("x", expression, inputs), ())
    found = load_pattern("top_k").propose(built.program, SITUATION)
    assert isinstance(found, Refusal)
    assert reason in found.reason
    with pytest.raises(ValueError, match="nothing to pick"):
        load_pattern("top_k").apply(built.program, TOP[0])
