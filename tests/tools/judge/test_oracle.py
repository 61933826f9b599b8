from pathlib import Path

import pytest
import torch

from tools.judge.exam import Exam
from tools.judge.inputs import generator
from tools.judge.subject import Subject
from tools.task import parse_task

REFERENCES = Path(__file__).parents[2] / "references"


@pytest.fixture(scope="module")
def subject():
    raw = {"name": "attention", "reference": "attention.py"}
    return Subject(parse_task(raw, "attention.yaml", REFERENCES))


def test_shaking_moves_inputs_by_their_last_bits_and_no_further(subject):
    inputs = subject.loaded.inputs(1)
    truth = subject.oracle.answer(subject.model, inputs).expected[0].truth
    shaken = [*subject.oracle.shaken(subject.model, inputs, generator(2))]
    assert shaken
    for (output,) in shaken:
        moved = (output.reshape(truth.shape) - truth).abs().max()
        assert 1e-9 < moved < 1e-6
    assert len({float(output.sum()) for (output,) in shaken}) == len(shaken)


def test_a_case_of_stretched_values_asks_how_well_conditioned_the_op_is(subject):
    exam = Exam(subject, 4.0)
    large = next(case for case in exam.cases if case.name == "large")
    assert large.stretched
    assert not exam.cases[0].stretched
    honest = torch.nn.functional.scaled_dot_product_attention(*large.inputs)
    assert exam.marker.mark((honest,), large)[0].passed
    scale = large.truth.reference[0].abs().max()
    wrong = honest + 1e-2 * scale
    assert not exam.marker.mark((wrong,), large)[0].passed
