"""What the clock's owner makes of results that were wrong in timed calls."""

from tools.judge.timing import NEAR_MISS, wrong_when_timed
from tools.verdict import CaseResult, Cheated, WrongOutput


def missed_by(tolerances: float) -> CaseResult:
    return CaseResult(name="timed call 2", passed=False, worst=tolerances)


def test_a_near_miss_in_a_timed_call_is_lost_precision_and_no_cheat():
    verdict = wrong_when_timed(missed_by(1.3), "1 of 995328 elements are wrong")
    assert isinstance(verdict, WrongOutput)
    assert verdict.detail == "timed call 2: 1 of 995328 elements are wrong"
    assert verdict.cases[-1].worst == 1.3


def test_another_result_in_a_timed_call_is_a_cheat():
    for tolerances in (NEAR_MISS * 1.01, float("inf")):
        verdict = wrong_when_timed(missed_by(tolerances), "all elements are wrong")
        assert isinstance(verdict, Cheated)
        assert verdict.check == "timed output"
