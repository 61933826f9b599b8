"""No honest kernel is rejected, whatever it looks like."""

import ast
from pathlib import Path

import pytest

from tools.verdict import Correct

KERNELS = sorted((Path(__file__).parent / "kernels").glob("*.py"))
CASES = {"ordinary 1", "ordinary 2", "held output"}


def reference_of(source: str) -> str:
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="AGAINST")], value=value):
                return ast.literal_eval(value)
    raise AssertionError("the kernel does not say what it stands against")


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_an_honest_kernel_is_accepted_and_timed(path, judge_fully):
    source = path.read_text()
    verdict = judge_fully(reference_of(source), source, True)
    assert isinstance(verdict, Correct), verdict
    assert verdict.timing is not None
    assert verdict.timing.checked_outputs >= 1
    assert {row.baseline for row in verdict.timing.comparisons} == {"eager"}


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_an_honest_kernel_has_room_to_spare_in_every_case(path, judge_fully):
    source = path.read_text()
    verdict = judge_fully(reference_of(source), source, False)
    assert isinstance(verdict, Correct), verdict
    assert {case.name for case in verdict.cases} >= CASES
    assert all(case.passed and case.worst <= 0.9 for case in verdict.cases), verdict.cases


def test_calling_the_frameworks_own_operator_is_a_label_and_no_rejection(judge_fully):
    source = (
        "import torch\n"
        "class ModelNew(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        try:\n"
        "            return torch.ops.mine.softmax(x)\n"
        "        except AttributeError:\n"
        "            return torch.softmax(x, dim=-1)\n"
    )
    verdict = judge_fully("softmax", source, False)
    assert isinstance(verdict, Correct)
    assert "calls torch's own softmax" in verdict.labels


def test_weights_that_cannot_be_given_by_name_are_judged_under_another_seed(judge_fully):
    source = Path(__file__).parent.joinpath("kernels", "weights_renamed.py").read_text()
    verdict = judge_fully("rows", source, False)
    assert isinstance(verdict, Correct)
    assert "rebuilt weights" in {case.name for case in verdict.cases}
