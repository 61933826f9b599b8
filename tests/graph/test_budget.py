"""How much is tried within a budget, and when it is spent."""

import pytest

from agents.brief import Brief, Plan, promises_enough
from graph.nodes import affordable, budget_spent
from tests.graph import builders
from tools.task import Budget, InputSpec, Task
from tools.verdict import WrongOutput


def brief(seconds_left: float, trials: int = 0, trials_left: int = 10, width: int = 3) -> Brief:
    inputs = (InputSpec(shape=(builders.ROWS, builders.COLUMNS)),)
    # Each of the builders' trials took 4.2 s.
    done = tuple(builders.trial(n, WrongOutput(detail="")) for n in range(1, trials + 1))
    return Brief(
        task=Task(name="softmax", op="torch.softmax", inputs=inputs, width=width),
        device=builders.device(), facts=builders.facts(), baselines=builders.baselines(),
        roofline=builders.roofline(), trials=done, trials_left=trials_left,
        seconds_left=seconds_left,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "plans"),
    [
        (brief(60.0), 3),
        (brief(60.0, trials_left=2), 2),
        (brief(-5.0), 1),
        (brief(60.0, trials=2), 3),
        (brief(9.0, trials=2), 2),
        (brief(0.5, trials=2), 1),
    ],
)
def test_no_more_plans_are_tried_than_there_is_time_for(asked: Brief, plans: int) -> None:
    assert affordable(asked) == plans


def test_a_minute_that_preparing_took_is_spent_only_once_something_was_tried() -> None:
    assert budget_spent(brief(-5.0)) == ""
    assert "minutes is spent" in budget_spent(brief(-5.0, trials=1))
    assert "trials is spent" in budget_spent(brief(5.0, trials=1, trials_left=0))


def test_the_devices_time_is_a_budget_of_its_own() -> None:
    capped = brief(60.0, trials=2).model_copy(update={"device_seconds_left": 5.0})
    assert affordable(capped) == 1
    task = capped.task.model_copy(update={"budget": Budget(device_seconds=30)})
    spent = capped.model_copy(update={"device_seconds_left": -1.0, "task": task})
    assert budget_spent(spent) == "the budget of 30 seconds on the device is spent"


@pytest.mark.parametrize(
    ("maker", "expected", "enough"),
    [("a:b", 2.42, False), ("a:b", 2.50, True), ("playbook", 1.10, True)],
)
def test_a_models_plan_must_promise_more_than_noise_over_the_best_so_far(
    maker: str, expected: float, enough: bool
) -> None:
    plan = Plan(id="p2", title="", steps=(), expected_speedup=expected, arithmetic="", maker=maker)
    best = builders.trial(1, builders.correct(builders.timing(4.0)))
    assert promises_enough(plan, brief(60.0).model_copy(update={"trials": (best,)})) is enough
    assert promises_enough(plan, brief(60.0))
