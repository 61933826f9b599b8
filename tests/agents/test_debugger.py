"""The debugger's rules: the smallest change that could mend the failure."""

import pytest

from agents.playbook.debugger import mends_for, ways_out
from knowledge.pattern import Step
from tools.verdict import (
    BuildFailed,
    Cheated,
    ContractBroken,
    Correct,
    Crashed,
    Implausible,
    JudgeError,
    TimedOut,
    TimerMismatch,
    Verdict,
    WrongOutput,
)

LOOP = Step(
    pattern="row_loop", parameters={"exp": "inline", "accumulate": "float", "streaming": True}
)
PAGES = Step(pattern="output_pages")
MISS = WrongOutput(detail="17 of 64 elements")


def test_a_numeric_miss_widens_the_sums_first() -> None:
    steps, sentence = next(ways_out((LOOP, PAGES), MISS))
    assert steps[0].parameters == {"exp": "inline", "accumulate": "double", "streaming": True}
    assert steps[1] == PAGES
    assert "double" in sentence


def test_mends_add_up_until_nothing_is_left_to_change() -> None:
    last = [steps for steps, _ in ways_out((LOOP,), MISS)][-1]
    assert last[0].parameters == {"exp": "libm", "accumulate": "double", "streaming": False}


def test_a_tunable_that_a_step_lacks_is_not_invented() -> None:
    assert all(step.parameters == {} for steps, _ in ways_out((PAGES,), MISS) for step in steps)


def test_steps_are_left_out_one_at_a_time_the_newest_first() -> None:
    matmul = Step(pattern="matmul", parameters={})
    ways = [steps for steps, _ in ways_out((matmul, PAGES), Crashed(log=""))]
    assert ways[-2:] == [(matmul,), (PAGES,)]


def test_a_step_that_the_compiler_named_is_left_out_first() -> None:
    matmul = Step(pattern="matmul", parameters={})
    failed = BuildFailed(log='The C++ of "matmul_0", loaded on line 12, does not compile.')
    ways = [steps for steps, _ in ways_out((matmul, PAGES), failed) if steps != (matmul, PAGES)]
    assert ways[0] == (PAGES,)


def test_an_anchor_is_tried_without_what_follows_it() -> None:
    anchor = Step(pattern="convolution", parameters={"epilogue": True, "only": ""})
    sentences = [told for steps, told in ways_out((anchor,), MISS) if steps != (anchor,)]
    assert "loop of its own" in sentences[0]


REJECTIONS: list[Verdict] = [
    BuildFailed(log=""),
    Crashed(log=""),
    TimedOut(deadline_s=1.0),
    MISS,
    ContractBroken(detail=""),
    Cheated(check="", detail=""),
    Implausible(candidate_ms=1.0, floor_ms=2.0),
    TimerMismatch(detail=""),
]


@pytest.mark.parametrize("verdict", REJECTIONS, ids=lambda verdict: str(verdict.kind))
def test_every_rejection_of_several_steps_has_a_way_out(verdict: Verdict) -> None:
    assert list(ways_out((LOOP, PAGES), verdict))


@pytest.mark.parametrize(
    "verdict", [Correct(), JudgeError(log="")], ids=lambda verdict: str(verdict.kind)
)
def test_what_says_nothing_against_the_candidate_asks_for_no_change(verdict: Verdict) -> None:
    assert mends_for(verdict) == ()
