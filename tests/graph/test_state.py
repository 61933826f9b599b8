"""Reducers make it harmless that a node runs again after a restart."""

from agents.brief import Plan
from graph.record import Repair
from graph.state import append_plans, append_refusals, append_repairs
from knowledge.pattern import Refusal


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
