"""Large truths are worked out again, and marked by as if they had been kept."""

import gc
import weakref
from pathlib import Path

import pytest
import torch

from tools.judge.answers import Recalled
from tools.judge.exam import Exam
from tools.judge.oracle import Oracle, Truth
from tools.judge.room import CASES
from tools.judge.site import Host
from tools.judge.subject import Subject
from tools.reference import tensors_of
from tools.task import parse_task

REFERENCES = Path(__file__).parents[2] / "references"
RAW = {"name": "softmax", "reference": "softmax.py"}


class Roomy(Host):
    """So many bytes are free."""

    def __init__(self, free: int) -> None:
        self._free = free

    def free(self) -> int:
        return self._free


def exam_with(spare: int) -> Exam:
    """One whose subject has so many bytes more than it needs."""
    task = parse_task(RAW, "t.yaml", REFERENCES)
    ample = 1 << 40
    least = ample - Subject(task, Roomy(ample)).spare_bytes
    return Exam(Subject(task, Roomy(least + spare)), seconds=600.0)


def right(exam: Exam, place: int) -> tuple[torch.Tensor, ...]:
    case = exam.cases[place]
    return exam.subject.oracle.run(case.weights.model, case.inputs)


def test_truths_are_kept_where_there_is_room() -> None:
    exam = exam_with(1 << 34)
    assert len(exam.cases) > CASES
    assert all(isinstance(case.truth, Truth) for case in exam.cases)
    assert exam.cases[0].truth.reference is exam.cases[0].truth.reference


def test_where_there_is_none_one_truth_at_most_is_in_memory() -> None:
    exam = exam_with(0)
    assert len(exam.cases) == CASES
    first, second = exam.cases[0].truth, exam.cases[1].truth
    assert isinstance(first, Recalled)
    seen = weakref.ref(first.expected[0].truth)
    assert seen() is first.expected[0].truth
    assert second.reference[0].shape == second.like[0].shape
    gc.collect()
    assert seen() is None
    seen = weakref.ref(second.expected[0].truth)
    exam.put_away()
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("place", range(CASES))
def test_a_truth_that_was_not_kept_tells_right_from_wrong(place: int) -> None:
    exam = exam_with(0)
    case, outputs = exam.cases[place], right(exam, place)
    assert exam.marker.mark(outputs, case)[0].passed
    wrong = (outputs[0].clone(),)
    wrong[0].view(-1)[7] *= 1.01
    assert not exam.marker.mark(wrong, case)[0].passed
    other = right(exam, (place + 1) % CASES)
    assert not exam.marker.mark(other, case)[0].passed
    assert exam.few_changed is not None
    assert not exam.marker.mark(outputs, exam.few_changed)[0].passed


def test_a_stretched_case_is_asked_about_its_condition_without_a_truth_being_kept() -> None:
    exam = exam_with(6 * exam_with(0).subject.input_bytes)
    large = next(case for case in exam.cases if case.stretched)
    assert isinstance(large.truth, Recalled)
    answer = exam.subject.oracle.run(large.weights.model, large.inputs)[0]
    for _ in range(2):
        assert not exam.marker.mark((answer * 1.01,), large)[0].passed
        assert exam.marker.mark((answer,), large)[0].passed
    truth = weakref.ref(large.truth.expected[0].truth)
    exam.put_away()
    gc.collect()
    assert truth() is None


def test_further_cases_take_no_more_than_half_of_what_is_spare() -> None:
    size = exam_with(0).subject.input_bytes
    exam = exam_with(4 * size + 2)
    further = exam.cases[CASES:]
    assert 0 < sum(t.nbytes for case in further for t in tensors_of(case.inputs)) <= 2 * size


def test_a_reference_that_fails_when_it_is_asked_again_says_so(monkeypatch) -> None:
    exam = exam_with(0)

    def gone(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    exam.put_away()
    monkeypatch.setattr(Oracle, "answer", gone)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        _ = exam.cases[0].expected
