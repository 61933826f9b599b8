"""Cheats that give right answers may pass, but never gain: each does its reference's work twice.

An honest clock calls such a kernel half as fast as the reference, and only a cheat makes it faster.
"""

from pathlib import Path

import pytest

from tests.declared import reference_of
from tools.judge.lane import READ_OUT
from tools.verdict import Correct, Verdict

KERNELS = sorted((Path(__file__).parent / "gainless").glob("*.py"))
# The work done once would read 1.0; done twice, anything near that is a gain.
GAIN = 0.9
# A neighbour's load on the machine may favour either side once, and not every time.
ATTEMPTS = 3


# What works in the copy gains where the judge may not read a runner's memory (docs/judge.md).
COPIERS = ("work_in_the_copy",)


def gained(verdict: Verdict) -> float:
    """The speedup it was given; none where it was rejected."""
    if not isinstance(verdict, Correct):
        return 0.0
    assert verdict.timing is not None
    return verdict.timing.against_best.speedup


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_cheat_with_right_answers_gains_nothing(path, judge_fully):
    source = path.read_text()
    speedups = []
    for _ in range(ATTEMPTS):
        verdict = judge_fully(reference_of(source), source, True)
        if path.stem in COPIERS and READ_OUT not in verdict.isolation:
            pytest.skip("the judge may not read a runner's memory here")
        speedups.append(gained(verdict))
        if speedups[-1] < GAIN:
            return
    pytest.fail(f"speedups of {speedups} for twice the reference's work")
