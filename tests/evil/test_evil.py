"""Every cheating kernel is rejected, and for the right reason."""

import ast
from pathlib import Path

import pytest

from tools.verdict import Correct

KERNELS = sorted((Path(__file__).parent / "kernels").glob("*.py"))
TIMED = "heavy"


def declared(source: str) -> tuple[str, tuple[str, ...]]:
    """What the file says of itself: the reference it stands against, and how it is to be caught."""
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id="AGAINST"), _])], value=value):
                against, caught = ast.literal_eval(value)
                return against, caught
    raise AssertionError("the kernel does not say what it stands against")


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_cheating_kernel_is_rejected_for_the_right_reason(path, judge_fully):
    source = path.read_text()
    against, (kind, *more) = declared(source)
    verdict = judge_fully(against, source, True)
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
    assert len(KERNELS) >= 35


def test_the_judge_still_works_after_all_of_them(judge_fully):
    honest = (
        "import torch\n"
        "class ModelNew(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.softmax(x, dim=-1)\n"
    )
    assert isinstance(judge_fully("softmax", honest, True), Correct)
