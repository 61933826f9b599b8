"""Scans along any dimension against float64: forms, lengths, types, infinities; what is refused."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.pattern import Refusal, Step, load_pattern
from tests.patterns.workshop import SITUATION, build, complaints, function

SCAN = (Step(pattern="scan"),)
FEW = settings(max_examples=5, suppress_health_check=list(HealthCheck))
CALLS = ["cumsum(x, {})", "cumprod(x, {})", "cummax(x, {})[0]", "cummin(x, {})[0]",
         "logcumsumexp(x, {})"]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("dim", "shape"), [(-1, "7, 300"), (1, "3, 21, 5, 9"), (0, "2500")])
def test_a_scan_is_as_right_as_the_reference(call: str, dim: int, shape: str) -> None:
    built = build(function("x", f"torch.{call.format(dim)}", f"torch.randn({shape})"), SCAN)
    assert not built.program.library_calls
    assert complaints(built) == []


@FEW
@given(st.integers(1, 20), st.integers(1, 3), st.booleans())
def test_one_kernel_takes_every_batch_and_any_strides(n: int, m: int, turned: bool) -> None:
    for call in CALLS:
        built = build(function("x", f"torch.{call.format(-1)}", "torch.randn(7, 300)"), SCAN)
        x = torch.randn(300, n).t() if turned else torch.randn(n, 300 * m)[:, ::m]
        assert complaints(built, [x]) == []


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
@pytest.mark.parametrize("call", ["cumsum(x, 1)", "cummax(x, 0)[0]", "logcumsumexp(x, 1)"])
def test_other_types_are_scanned_wider_and_rounded_once(call: str, dtype: str) -> None:
    source = function("x", f"torch.{call}", f"torch.randn(9, 77).to(torch.{dtype})")
    assert complaints(build(source, SCAN)) == []


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
@pytest.mark.parametrize("formula", ["y.relu() * 2", "(y, y.relu() + 1)"])
@pytest.mark.parametrize("call", ["cumsum", "logcumsumexp"])
def test_what_follows_a_scan_of_other_types_is_in_its_kernel(
    call: str, formula: str, dtype: str
) -> None:
    text = f"(lambda y: {formula})(torch.{call}(x, -1))"
    built = build(function("x", text, f"torch.randn(9, 77).to(torch.{dtype})"), SCAN)
    assert (len(built.program.kernels), len(built.program.library_calls)) == (1, 0)
    assert complaints(built) == []


@pytest.mark.parametrize(
    ("expression", "calls"),
    [
        ("torch.cumsum(x.flip(1), 1).flip(1)", 3),
        ("torch.cumsum((x * y).flip(1), 1).flip(1)", 4),
        ("torch.cumsum(x * (y > 0), dim=1)", 2),
        ("torch.cumsum(x * y, 0)", 2),
        ("torch.cat([torch.zeros_like(x[:, :1]), torch.cumsum(x, 1)], 1)[:, :-1]", 4),
        ("torch.cumsum(torch.cat([torch.zeros_like(x[:, :1]), x], 1)[:, :-1], 1)", 4),
        ("torch.cumsum(torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1), 1)", 4),
        ("torch.cat([torch.ones_like(x[:1]), torch.cumprod(x, 0)], 0)[:-1]", 4),
        ("torch.cumprod(x.flip(0), 0).flip(0)", 3),
        ("torch.logcumsumexp(x.flip(1), 1).flip(1)", 3),
        ("torch.relu(torch.cumsum(x, 1)) * y", 3),
        ("(torch.tanh(z := torch.cumsum(x, 1)), z.flip(0))", 2),
        ("torch.cumsum(x, 1).amax(1)", 2),
    ],
)
def test_what_belongs_to_a_scan_goes_into_its_kernel(expression: str, calls: int) -> None:
    inputs = "torch.randn(11, 70), torch.randn(11, 70)"
    built = build(function("x, y", expression, inputs), SCAN)
    (kernel,) = built.program.kernels
    assert len(kernel.nodes) == calls
    assert complaints(built) == []


def test_a_scan_of_a_shifted_tensor_with_something_else_before_it_is_left_as_it_is() -> None:
    expression = "torch.cumsum(torch.cat([torch.ones_like(x[:, :1]), x[:, :-1]], 1), 1)"
    built = build(function("x", expression, "torch.randn(11, 70)"), SCAN)
    assert len(built.program.kernels[0].nodes) == 1
    assert complaints(built) == []


@pytest.mark.parametrize("call", CALLS)
def test_few_long_rows_are_scanned_in_parts(call: str) -> None:
    source = function("x", f"torch.{call.format(-1)}", "1 + torch.randn(3, 70001) * 1e-4")
    assert complaints(build(source, SCAN)) == []


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("dim", [0, 1])
def test_nan_and_infinity_spread_as_in_torch(call: str, dim: int) -> None:
    x = torch.randn(40, 40)
    x[3, 5], x[4, 7], x[6, 9], x[12, 2] = float("nan"), float("inf"), -float("inf"), 1e30
    x[:, 20], x[21], x[30, :4] = -float("inf"), float("inf"), -float("inf")
    built = build(function("x", f"torch.{call.format(dim)}", "torch.randn(40, 40)"), SCAN)
    assert complaints(built, [x]) == []


def test_log_sums_keep_small_terms_that_come_before_a_large_one() -> None:
    x = torch.randn(6, 900)
    x[0, :30] -= 300
    x[1] += torch.linspace(0, 2000, 900)
    x[2] -= torch.linspace(0, 2000, 900)
    built = build(function("x", "torch.logcumsumexp(x, 1)", "torch.randn(6, 900)"), SCAN)
    assert complaints(built, [x]) == []


def test_reading_positions_or_whole_numbers_is_refused_in_a_sentence() -> None:
    for expression, why in (
        ("torch.cummax(x, 1)", "positions"),
        ("torch.cumsum(x.int(), 1)", "int32"),
        ("x + 1", "scans nothing"),
    ):
        program = build(function("x", expression, "torch.randn(4, 8)"), ()).program
        answer = load_pattern("scan").propose(program, SITUATION)
        assert isinstance(answer, Refusal)
        assert why in answer.reason
        with pytest.raises(ValueError, match="nothing to scan"):
            load_pattern("scan").apply(program, SCAN[0])


def test_every_proposal_can_be_applied_and_they_differ_in_one_tunable() -> None:
    program = build(function("x", "torch.cumsum(x, 1)", "torch.randn(64, 128, 512)"), ()).program
    pattern = load_pattern("scan")
    answers = pattern.propose(program, SITUATION)
    assert isinstance(answers, list)
    assert [answer.step.parameters["strip"] for answer in answers] == [256, 64, 1024]
    assert answers[0].speedup > 1
    for answer in answers:
        assert pattern.apply(program, answer.step).kernels


def test_only_the_named_scans_are_taken() -> None:
    source = function("x", "torch.cumsum(torch.cumprod(x, 1), 0)", "torch.randn(4, 8)")
    built = build(source, (Step(pattern="scan", parameters={"only": "cumsum"}),))
    assert [node.name for node in built.program.library_calls] == ["cumprod"]
    assert complaints(built) == []
