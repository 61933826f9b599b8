"""Decisions that hang on last bits are found, and no others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tools.judge.case import Case
from tools.judge.exam import Exam
from tools.judge.picks import Noted, Turned
from tools.judge.subject import Subject
from tools.task import parse_task

REFERENCES = Path(__file__).parents[2] / "references"
Op = Callable[[torch.Tensor], torch.Tensor]


def both(op: Op, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What an op returns in float64, and with its decisions turned."""
    with Noted() as noted:
        op(x)
    with Turned(noted.values, 4.0):
        turned = op(x.double())
    return op(x.double()), turned


@pytest.mark.parametrize(
    "op",
    [
        lambda x: x.topk(3, dim=1).indices,
        lambda x: x.topk(3, dim=1, largest=False).indices,
        lambda x: torch.sort(x, dim=1, descending=True).indices,
        lambda x: x.argsort(dim=1),
    ],
    ids=["largest", "smallest", "descending", "ascending"],
)
def test_every_place_among_equals_is_another_and_no_place_is_taken_twice(op: Op) -> None:
    plain, turned = both(op, torch.ones(5, 8))
    assert (plain != turned).all()
    assert all(row.unique().numel() == row.numel() for row in turned)


def test_of_values_that_are_given_only_equal_ones_are_exchanged() -> None:
    x = torch.tensor([[4.0, 1.0, 3.0, 3.0], [1.0, 2.0, 3.0, 3.0000002]])
    plain, turned = both(lambda given: given.topk(2, dim=1).indices, x)
    assert turned[1].tolist() == plain[1].tolist() == [3, 2]
    assert turned[0, 0] == 0
    assert {int(plain[0, 1]), int(turned[0, 1])} == {2, 3}


@pytest.mark.parametrize(
    "op",
    [
        lambda x: x.argmax(1),
        lambda x: x.max(1, keepdim=True).indices,
        lambda x: x.argmin(),
        lambda x: torch.sort(x, dim=1, stable=True).indices,
    ],
    ids=["argmax", "max", "argmin", "stable sort"],
)
def test_the_first_of_equals_is_a_promise(op: Op) -> None:
    plain, turned = both(op, torch.ones(3, 6))
    assert torch.equal(plain, turned)


def test_the_place_of_a_computed_maximum_is_open_where_rounding_decides() -> None:
    x = torch.randn(64, 40, generator=torch.Generator().manual_seed(1))
    x[:8, 7] = x[:8].amax(1)
    x[:8, 8] = x[:8, 7] * (1 + 1e-7)
    plain, turned = both(lambda given: (given / 3).argmax(1), x)
    assert (plain[:8] != turned[:8]).all()
    assert torch.equal(plain[8:], turned[8:])


@pytest.mark.parametrize(
    ("op", "step"),
    [
        (lambda x: (x / 3).round(), 1.5),
        (lambda x: (x / 3).floor(), 3.0),
        (lambda x: (x / 3).to(torch.int32), 3.0),
        (lambda x: (x / 3) > 1.0, 3.0),
        (lambda x: (x / 3) <= 1.0, 3.0),
        (lambda x: (x / 3 - 1).sign(), 3.0),
    ],
    ids=["round", "floor", "whole", "above", "not above", "sign"],
)
def test_a_step_is_taken_from_the_other_side_where_it_is_near(op: Op, step: float) -> None:
    x = torch.tensor([[step * (1 + 1e-7), step * (1 - 1e-7), step * 1.01, step * 0.7, 0.4]])
    plain, turned = both(op, x)
    assert (plain != turned).tolist() == [[True, True, False, False, False]]


def test_a_step_of_values_that_are_given_is_exact() -> None:
    x = torch.tensor([[0.5, 1.5, 2.0, 0.49999997]])
    plain, turned = both(lambda given: given.round(), x)
    assert torch.equal(plain, turned)


def subject(name: str) -> Subject:
    raw = {"name": name, "reference": f"{name}.py"}
    return Subject(parse_task(raw, f"{name}.yaml", REFERENCES))


@pytest.mark.parametrize("name", ["router", "codes", "quantised", "topk", "tally"])
def test_little_is_left_open_of_an_ordinary_case(name: str) -> None:
    exam = Exam(subject(name), 1.0)
    found = [one for one in exam.marker.undecided(exam.cases[0]) if one is not None]
    assert found
    # Two scores of a row may be equal by chance, which leaves two places open.
    assert all(int(one.where.sum()) <= max(2e-3 * one.where.numel(), 4) for one in found)


@pytest.mark.parametrize("name", ["router", "quantised"])
def test_what_rounding_decides_is_open_where_scores_are_made_to_meet(name: str) -> None:
    exam = Exam(subject(name), 1.0)
    ordinary = exam.cases[0]
    # Half of the rows so small that all that is computed of them is equal, or nearly.
    inputs = tuple(tensor.clone() for tensor in ordinary.inputs)
    inputs[0][::2] *= 1e-7
    truth = exam.subject.oracle.answer(ordinary.weights.model, inputs)
    meeting = Case("meeting", ordinary.weights, inputs, truth, stretched=True)
    open_ones = exam.marker.undecided(meeting)
    shares = [float(one.where.double().mean()) for one in open_ones if one is not None]
    assert any(share > 0 for share in shares)
    assert all(share <= 0.6 for share in shares)


def test_where_most_is_open_of_ordinary_values_nothing_is() -> None:
    exam = Exam(subject("router"), 1.0)
    ordinary = exam.cases[0]
    inputs = (torch.zeros_like(ordinary.inputs[0]),)
    truth = exam.subject.oracle.answer(ordinary.weights.model, inputs)
    case = Case("equals", ordinary.weights, inputs, truth)
    assert exam.marker.undecided(case) == (None, None)


def test_nothing_is_open_that_lies_outside_of_what_the_op_returns() -> None:
    exam = Exam(subject("router"), 1.0)
    ordinary = exam.cases[0]
    inputs = (torch.zeros_like(ordinary.inputs[0]),)
    truth = exam.subject.oracle.answer(ordinary.weights.model, inputs)
    equals = Case("equals", ordinary.weights, inputs, truth, stretched=True)
    weights = torch.full((4096, 2), 0.5)
    which = torch.tensor([[5, 9]]).repeat(4096, 1)
    assert exam.marker.mark((weights, which), equals)[0].passed
    assert not exam.marker.mark((weights, which + 60), equals)[0].passed
    assert not exam.marker.mark((weights * 1.01, which), equals)[0].passed
