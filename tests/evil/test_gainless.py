"""Cheats that give right answers may pass, but never gain: each does its reference's work twice.

An honest clock calls such a kernel half as fast as the reference, and only a cheat makes it faster.
"""

from pathlib import Path

import pytest

from tests.declared import reference_of
from tools.verdict import Correct, Verdict

KERNELS = sorted((Path(__file__).parent / "gainless").glob("*.py"))
# The work done once would read 1.0; done twice, anything near that is a gain.
GAIN = 0.9
# A neighbour's load on the machine may favour either side once, and not every time.
ATTEMPTS = 3


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
        speedups.append(gained(judge_fully(reference_of(source), source, True)))
        if speedups[-1] < GAIN:
            return
    pytest.fail(f"speedups of {speedups} for twice the reference's work")
