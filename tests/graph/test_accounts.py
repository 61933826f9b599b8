"""What a run costs: counted from its exchanges, and reckoned before it starts."""

import pytest

from graph.accounts import estimate_of, usage_of
from graph.record import Usage
from graph.report.words import estimate_text, spending_text
from tests.graph.speaking import MODEL, exchange, price
from tools.task import Budget, InputSpec, Task

ROLES = dict.fromkeys(("planner", "coder", "debugger", "profiler"), MODEL)


def task(**budget: float) -> Task:
    return Task(
        name="relu",
        op="torch.relu",
        inputs=(InputSpec(shape=(2, 2)),),
        budget=Budget.model_validate(budget),
    )


def test_usage_is_told_by_role_and_model() -> None:
    said = [exchange(f"{n}", "coder", "p1", "x") for n in range(3)]
    usage = usage_of([*said, exchange("p", "planner", "", "y")], 2.5, None)
    assert [(share.role, share.calls) for share in usage.shares] == [("coder", 3), ("planner", 1)]
    assert usage.tokens == 4 * 120
    assert usage.usd == pytest.approx(0.004)
    assert usage.device_seconds == 2.5


def test_a_model_without_a_price_is_named_and_not_guessed() -> None:
    usage = usage_of([exchange("k", "coder", "p1", "x", usd=None)], 0.0, None)
    assert usage.shares[0].usd is None
    assert usage.unpriced == (MODEL,)
    assert f"price of {MODEL} unknown" in spending_text(usage)
    assert "$" not in spending_text(usage)


def test_where_no_model_thinks_nothing_is_estimated() -> None:
    assert estimate_of(task(), {}, price) is None
    assert spending_text(Usage()) == "not asked"


def test_an_estimate_grows_with_the_trials_and_stays_under_the_caps() -> None:
    small, large = (
        estimate_of(task(trials=n, tokens=10**9, usd=10**6), ROLES, price) for n in (2, 20)
    )
    assert small is not None
    assert large is not None
    assert 0 < small.tokens < large.tokens
    assert 0 < small.usd < large.usd
    capped = estimate_of(task(trials=20, tokens=1000, usd=0.01), ROLES, price)
    assert capped is not None
    assert (capped.tokens, capped.usd) == (1000, 0.01)
    assert "never over 1,000 tokens or $0.01" in estimate_text(
        capped, Budget(tokens=1000, usd=0.01)
    )


def test_an_estimate_says_which_prices_it_lacks() -> None:
    found = estimate_of(task(), ROLES, lambda model, taken, given: None)
    assert found is not None
    assert found.unpriced == (MODEL,)
    assert "unknown" in estimate_text(found, Budget())
