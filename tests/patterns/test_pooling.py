"""Poolings of all kinds against float64: windows, margins, dtypes, sizes; and what is refused."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.pattern import Refusal, Step, load_pattern
from tests.patterns.workshop import SITUATION, Built, build, complaints, function

POOLING = (Step(pattern="pooling"),)
BOTH = (Step(pattern="pooling"), Step(pattern="row_loop"))
FEW = settings(max_examples=5, suppress_health_check=list(HealthCheck))


def pooled(expression: str, shape: str, steps: tuple[Step, ...] = POOLING) -> Built:
    """A built pooling of x, with nothing left to the library."""
    built = build(function("x", expression, f"torch.randn({shape})"), steps)
    assert not built.program.library_calls
    return built


@pytest.mark.parametrize(
    ("expression", "shape"),
    [
        ("F.max_pool2d(x, 3, 2, 1)", "2, 3, 17, 20"),
        ("F.max_pool2d(x, 2)", "3, 9, 11"),
        ("F.max_pool2d(x, (3, 2), (1, 3), (1, 0), (2, 3))", "2, 2, 15, 16"),
        ("F.max_pool2d(x, 3, 2, 1, ceil_mode=True)", "2, 3, 12, 13"),
        ("F.max_pool2d(x, 13, 1, 6)", "1, 2, 30, 25"),
        ("F.max_pool2d(x, (1, 19), (1, 2), (0, 7), (1, 2))", "1, 2, 3, 90"),
        ("F.max_pool1d(x, 3, 2, 1)", "2, 3, 1400"),
        ("F.max_pool1d(x, 64, 16)", "5, 700"),
        ("F.max_pool3d(x, 3, 2, 1)", "2, 2, 7, 8, 9"),
        ("F.max_pool2d(x, 2, return_indices=True)[0]", "2, 3, 8, 8"),
        ("F.avg_pool2d(x, 3, 2, 1)", "2, 3, 17, 20"),
        ("F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)", "2, 3, 17, 20"),
        ("F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)", "2, 3, 12, 14"),
        ("F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)", "2, 3, 12, 14"),
        ("F.avg_pool2d(x, (2, 3), divisor_override=5)", "2, 3, 8, 9"),
        ("F.avg_pool2d(x, 11, 1, 5)", "2, 2, 20, 33"),
        ("F.avg_pool1d(x, 8, 1, 4)", "2, 3, 1300"),
        ("F.avg_pool3d(x, 2)", "2, 2, 6, 7, 8"),
        ("F.avg_pool3d(x, 3, 2, 1, True, False)", "2, 2, 6, 7, 8"),
        ("F.adaptive_avg_pool2d(x, (3, 5))", "2, 3, 8, 12"),
        ("F.adaptive_avg_pool2d(x, (None, 4))", "2, 3, 8, 12"),
        ("F.adaptive_avg_pool1d(x, 7)", "4, 5000"),
        ("F.adaptive_avg_pool3d(x, (2, 1, 3))", "2, 2, 5, 6, 7"),
        ("F.adaptive_max_pool2d(x, (3, 5))", "2, 3, 8, 12"),
        ("F.adaptive_max_pool1d(x, 7)", "2, 3, 50"),
    ],
)
def test_a_pooling_is_as_right_as_the_reference(expression: str, shape: str) -> None:
    assert complaints(pooled(expression, shape)) == []


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
@pytest.mark.parametrize("call", ["F.max_pool2d(x, 3, 2, 1)", "F.avg_pool2d(x, 3, 2, 1)"])
def test_other_types_are_joined_wider_and_rounded_once(call: str, dtype: str) -> None:
    source = function("x", call, f"torch.randn(2, 3, 17, 20).to(torch.{dtype})")
    assert complaints(build(source, POOLING)) == []


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
@pytest.mark.parametrize("formula", ["F.gelu(y)", "(y, F.relu(y) + 1)"])
@pytest.mark.parametrize("call", ["max_pool2d(x, 3, 2, 1)", "adaptive_avg_pool2d(x, 4)"])
def test_what_follows_a_pooling_of_other_types_is_in_its_kernel(
    call: str, formula: str, dtype: str
) -> None:
    text = f"(lambda y: {formula})(F.{call})"
    built = build(function("x", text, f"torch.randn(2, 3, 17, 20).to(torch.{dtype})"), POOLING)
    assert (len(built.program.kernels), len(built.program.library_calls)) == (1, 0)
    assert complaints(built) == []


@FEW
@given(st.integers(1, 12), st.booleans())
def test_one_kernel_takes_every_batch_and_any_strides(n: int, turned: bool) -> None:
    built = pooled("F.max_pool2d(x, 3, 2, 1)", "2, 3, 17, 20")
    x = torch.randn(n, 3, 20, 17).transpose(2, 3) if turned else torch.randn(n, 6, 17, 20)[:, ::2]
    assert complaints(built, [x]) == []
    rows = build(function("x", "F.avg_pool1d(x, 5, 2, 2)", "torch.randn(3, 40)"), POOLING)
    assert complaints(rows, [torch.randn(n, 40)]) == []


@FEW
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(0, 1), st.integers(1, 2),
    st.integers(9, 14), st.integers(9, 30),
)  # fmt: skip
def test_windows_of_any_form_find_the_largest(
    k: int, stride: int, pad: int, dilation: int, h: int, w: int
) -> None:
    pad = min(pad, k // 2)
    call = f"F.max_pool2d(x, {k}, {stride}, {pad}, {dilation})"
    assert complaints(pooled(call, f"2, 2, {h}, {w}")) == []


def test_nan_and_infinity_come_out_of_the_windows_that_hold_them() -> None:
    x = torch.randn(2, 3, 17, 20)
    x[0, 0, 3, 4], x[0, 1, 0, 0], x[1, 2] = float("nan"), float("inf"), -float("inf")
    x[1, 0, 16, 19] = float("nan")
    for call in ("F.max_pool2d(x, 3, 2, 1)", "F.avg_pool2d(x, 3, 2, 1)"):
        assert complaints(pooled(call, "2, 3, 17, 20"), [x]) == []
    wide = torch.randn(1, 2, 30, 25)
    wide[0, 0, 9, 9], wide[0, 1] = float("nan"), -float("inf")
    assert complaints(pooled("F.max_pool2d(x, 13, 1, 6)", "1, 2, 30, 25"), [wide]) == []


@pytest.mark.parametrize(
    ("expression", "shape"),
    [
        ("torch.tanh(F.max_pool2d(x, 2)) * 2 + 1", "2, 3, 16, 18"),
        ("F.avg_pool2d(x, 2).sum((2, 3))", "2, 3, 16, 18"),
        ("torch.softmax(F.avg_pool2d(x, 2), -1)", "2, 3, 16, 18"),
        ("(F.gelu(z := F.max_pool2d(x, 2)), torch.cumsum(z, 0))", "2, 3, 16, 18"),
    ],
)
def test_what_follows_a_pooling_is_fused(expression: str, shape: str) -> None:
    built = build(function("x", expression, f"torch.randn({shape})"), POOLING)
    assert len(built.program.kernels) == 1
    assert complaints(built) == []


def test_two_poolings_in_a_row_are_two_kernels() -> None:
    built = pooled("F.avg_pool2d(F.max_pool2d(x, 2), 2) + 1", "2, 3, 16, 18")
    assert len(built.program.kernels) == 2
    assert complaints(built) == []


def test_what_keeps_order_is_done_after_the_largest_is_found() -> None:
    built = pooled("F.max_pool2d(torch.relu(x) * 0.5 + 1, 2)", "2, 3, 16, 18")
    assert len(built.program.kernels) == 1
    assert built.program.graph.calls[0].target.startswith("aten.max_pool2d")
    x = torch.randn(2, 3, 16, 18)
    x[0, 0, 0, 0] = float("nan")
    assert complaints(built, [x]) == []


def test_what_turns_order_round_stays_before_the_pooling() -> None:
    source = function("x", "F.max_pool2d(x * -0.5, 2)", "torch.randn(2, 3, 16, 18)")
    built = build(source, BOTH)
    assert "mul" in built.program.graph.calls[0].target
    assert complaints(built) == []


@pytest.mark.parametrize(
    ("expression", "inputs", "why"),
    [
        ("F.max_pool2d(x, 2, return_indices=True)", "torch.randn(2, 3, 8, 8)", "positions"),
        ("F.max_pool2d(x, 2)", "torch.ones(2, 3, 8, 8).int()", "pooling of int32"),
        ("x + 1", "torch.randn(3)", "pools nothing"),
    ],
)
def test_what_it_cannot_do_is_refused_in_a_sentence(expression: str, inputs: str, why: str) -> None:
    program = build(function("x", expression, inputs), ()).program
    answer = load_pattern("pooling").propose(program, SITUATION)
    assert isinstance(answer, Refusal)
    assert why in answer.reason
    with pytest.raises(ValueError, match="nothing to pool"):
        load_pattern("pooling").apply(program, POOLING[0])


def test_every_proposal_can_be_applied_and_they_differ_in_one_tunable() -> None:
    program = build(
        function("x", "F.max_pool2d(x, 3, 1)", "torch.randn(8, 64, 56, 56)"), ()
    ).program
    pattern = load_pattern("pooling")
    answers = pattern.propose(program, SITUATION)
    assert isinstance(answers, list)
    assert [answer.step.parameters["strip"] for answer in answers] == [512, 128, 2048]
    assert answers[0].speedup > answers[1].speedup > 1
    for answer in answers:
        assert pattern.apply(program, answer.step).kernels


def test_only_the_named_poolings_are_taken() -> None:
    source = function("x", "F.avg_pool2d(F.max_pool2d(x, 2), 2)", "torch.randn(2, 3, 16, 18)")
    step = Step(pattern="pooling", parameters={"only": "avg_pool2d"})
    built = build(source, (step,))
    assert [node.name for node in built.program.library_calls] == ["max_pool2d"]
    assert complaints(built) == []


def test_input_that_is_shorter_than_a_window_is_an_error() -> None:
    built = build(function("x", "F.avg_pool1d(x, 5, 2)", "torch.randn(3, 40)"), POOLING)
    with pytest.raises(ValueError, match=r"shorter than a window|made for float32"):
        built.candidate()(torch.randn(3, 4))
