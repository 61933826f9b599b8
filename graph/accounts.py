"""What models cost: counted from a run's exchanges, and reckoned before the run starts."""

import math
from collections.abc import Iterable, Mapping

from agents.llm.exchange import Exchange, Role
from graph.journal import PriceOf
from graph.record import Estimate, Share, Usage
from tools.task import Budget, Task

# Tokens in and out of one turn of a role: a prompt holds the op's graph, the pages found and the
# parent's source; a coder answers with a module.
USUAL: Mapping[Role, tuple[int, int]] = {
    "planner": (9_000, 1_500),
    "coder": (9_000, 4_000),
    "debugger": (9_000, 4_000),
    "profiler": (5_000, 800),
}


def usage_of(
    exchanges: Iterable[Exchange], device_seconds: float, estimate: Estimate | None
) -> Usage:
    """The account of a run so far, by role and model."""
    by_share: dict[tuple[Role, str], list[Exchange]] = {}
    for exchange in exchanges:
        by_share.setdefault((exchange.role, exchange.model), []).append(exchange)
    shares = tuple(_share(role, model, group) for (role, model), group in sorted(by_share.items()))
    return Usage(
        tokens=sum(share.input_tokens + share.output_tokens for share in shares),
        usd=sum(e.usage.usd or 0.0 for group in by_share.values() for e in group),
        unpriced=tuple(dict.fromkeys(share.model for share in shares if share.usd is None)),
        shares=shares,
        device_seconds=device_seconds,
        estimate=estimate,
    )


def _share(role: Role, model: str, exchanges: list[Exchange]) -> Share:
    prices = [exchange.usage.usd for exchange in exchanges]
    known = [price for price in prices if price is not None]
    return Share(
        role=role,
        model=model,
        calls=len(exchanges),
        input_tokens=sum(exchange.usage.input_tokens for exchange in exchanges),
        output_tokens=sum(exchange.usage.output_tokens for exchange in exchanges),
        usd=sum(known) if len(known) == len(prices) else None,
        seconds=sum(exchange.seconds for exchange in exchanges),
    )


def estimate_of(task: Task, models: Mapping[Role, str], price_of: PriceOf) -> Estimate | None:
    """What the run costs if every trial is spent; None where no model thinks.

    A trial is written by the coder or, as a repair, by the debugger, and read by the profiler; a
    round of plans is one call of the planner. Never more than what the budget lets through.
    """
    if not models:
        return None
    calls = _calls(task.budget, task.width)
    tokens, usd, total = 0, 0.0, 0
    unpriced: list[str] = []
    for role, model in models.items():
        taken, given = USUAL[role]
        total += calls[role]
        tokens += calls[role] * (taken + given)
        price = price_of(model, calls[role] * taken, calls[role] * given)
        if price is None:
            unpriced.append(model)
        usd += price or 0.0
    return Estimate(
        calls=total,
        tokens=min(tokens, task.budget.tokens),
        usd=min(usd, task.budget.usd),
        unpriced=tuple(dict.fromkeys(unpriced)),
    )


def _calls(budget: Budget, width: int) -> dict[Role, int]:
    """At most so many calls of each role; a repair takes a trial that a plan could have had."""
    repairs = budget.trials * budget.repairs // (budget.repairs + 1)
    return {
        "planner": math.ceil(budget.trials / width),
        "coder": budget.trials - repairs,
        "debugger": repairs,
        "profiler": budget.trials,
    }
