"""Strategies choose parents from measured trials alone."""

import pytest

from graph.strategy import Beam, Greedy, ranked
from tools.candidate import Candidate
from tools.verdict import Comparison, Correct, Timing, Trial, Verdict, WrongOutput


def timed(speedup: float) -> Correct:
    comparison = Comparison(
        baseline="eager",
        baseline_ms=speedup,
        candidate_ms=1.0,
        speedup=speedup,
        low=speedup * 0.99,
        high=speedup * 1.01,
        blocks=8,
    )
    return Correct(
        timing=Timing(
            candidate_ms=1.0,
            comparisons=(comparison,),
            noise=0.01,
            page_faults=0.0,
            checked_outputs=3,
        )
    )


def trial(number: int, pattern: str, verdict: Verdict) -> Trial:
    return Trial(
        number=number,
        plan=f"p{number}",
        pattern=pattern,
        title=pattern,
        parent=None,
        repair=0,
        candidate=Candidate(source=str(number), backend="cpp"),
        verdict=verdict,
        seconds=1.0,
    )


TRIALS = [
    trial(1, "row_loop", timed(2.0)),
    trial(2, "row_loop", timed(3.0)),
    trial(3, "algebra", timed(1.5)),
    trial(4, "algebra", WrongOutput(detail="all of it")),
    trial(5, "output_pages", timed(1.2)),
]


def test_a_rejected_trial_is_never_ranked() -> None:
    assert [t.number for t in ranked(TRIALS)] == [2, 1, 3, 5]


def test_greedy_builds_on_the_fastest_alone() -> None:
    assert Greedy().parents(TRIALS, (), width=3) == (2,)


@pytest.mark.parametrize(("width", "expected"), [(1, (2,)), (2, (2, 3)), (9, (2, 3, 5))])
def test_beam_keeps_the_best_of_each_pattern(width: int, expected: tuple[int, ...]) -> None:
    assert Beam().parents(TRIALS, (), width) == expected


def test_without_a_timed_trial_there_is_nothing_to_build_on() -> None:
    assert Beam().parents([TRIALS[3]], (), width=2) == ()
