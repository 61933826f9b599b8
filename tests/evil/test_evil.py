"""Every cheating kernel is rejected, and for the right reason."""

from pathlib import Path

import pytest

from tests.declared import declared
from tools.candidate import Candidate
from tools.verdict import Correct

KERNELS = sorted((Path(__file__).parent / "kernels").glob("*.py"))


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_cheating_kernel_is_rejected_for_the_right_reason(path, judge_fully, judges):
    source = path.read_text()
    against, (kind, *more) = declared(source)
    verdict = judge_fully(against, source, True)
    if isinstance(verdict, Correct):
        # Of some 3,000 exams one asks nothing that a key of two elements misses; a winner has two.
        verdict = judges(against).confirm(Candidate(source=source, backend="torch"))
    kinds = [kind, *(word for word in more if word in KINDS)]
    words = [word for word in more if word not in KINDS]
    assert verdict.kind in kinds, verdict
    told = " ".join(str(verdict).split())
    assert all(word in told for word in words), verdict
    assert not isinstance(verdict, Correct)


KINDS = {
    "build_failed",
    "crashed",
    "timed_out",
    "wrong_output",
    "contract_broken",
    "cheated",
    "implausible",
    "timer_mismatch",
}


def test_there_are_as_many_cheats_as_the_suite_promises():
    assert len(KERNELS) >= 75


def test_the_judge_still_works_after_all_of_them(judge_fully):
    honest = (
        "import torch\n"
        "class ModelNew(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.softmax(x, dim=-1)\n"
    )
    assert isinstance(judge_fully("softmax", honest, True), Correct)
