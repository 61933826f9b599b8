"""No honest kernel is rejected, whatever it looks like."""

from pathlib import Path

import pytest

from tests.declared import reference_of
from tools.candidate import Candidate
from tools.verdict import Correct

KERNELS = sorted((Path(__file__).parent / "kernels").glob("*.py"))
CASES = {"ordinary 1", "ordinary 2", "held output"}
# Of what is allowed: an honest kernel on another machine may round a little worse.
ROOM = 0.9


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_an_honest_kernel_is_accepted_with_room_to_spare_and_timed(path, judges):
    source = path.read_text()
    judge = judges(reference_of(source))
    candidate = Candidate(source=source, backend="torch")
    verdict = judge.verify(candidate)
    assert isinstance(verdict, Correct), verdict.model_dump_json(indent=1)
    assert {case.name for case in verdict.cases} >= CASES
    assert all(case.passed and case.worst <= ROOM for case in verdict.cases), verdict.cases
    timed = judge.measure(candidate, ("eager",))
    assert isinstance(timed, Correct), timed.model_dump_json(indent=1)
    assert timed.timing is not None
    assert timed.timing.checked_outputs >= 1
    assert {row.baseline for row in timed.timing.comparisons} == {"eager"}


def test_there_are_as_many_honest_kernels_as_the_suite_promises():
    assert len(KERNELS) >= 40


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
