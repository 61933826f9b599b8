"""Reducers make it harmless that a node runs again after a restart."""

from agents.brief import Plan
from graph.record import Repair
from graph.state import add_trials, append_plans, append_refusals, append_repairs
from knowledge.pattern import Refusal
from tests.graph import builders
from tools.verdict import Trial, WrongOutput


def plan(identity: str, title: str = "") -> Plan:
    return Plan(id=identity, title=title, steps=(), expected_speedup=1.0, arithmetic="")


def test_a_plan_that_is_made_again_is_stored_once() -> None:
    stored = (plan("p1", "first"),)
    assert append_plans(stored, (plan("p1", "again"), plan("p2"))) == (*stored, plan("p2"))


def test_a_refusal_repeated_in_a_later_round_is_stored_once() -> None:
    refusal = Refusal(pattern="algebra", reason="no matmul")
    assert append_refusals((refusal,), (refusal,)) == (refusal,)


def test_a_failed_trial_has_one_repair() -> None:
    repair = Repair(failed_trial=1, action="sums in double")
    assert append_repairs((repair,), (repair,)) == (repair,)


def trial(number: int, detail: str = "off by one") -> Trial:
    return builders.trial(number, WrongOutput(detail=detail))


def test_trials_stand_in_the_order_of_their_numbers_whenever_they_end() -> None:
    stored = add_trials({}, {2: trial(2)})
    stored = add_trials(stored, {3: trial(3)})
    stored = add_trials(stored, {1: trial(1), 2: trial(2, "judged again")})
    assert list(stored.values()) == [trial(1), trial(2), trial(3)]
