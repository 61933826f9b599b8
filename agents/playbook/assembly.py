"""A plan put together of what was the fastest on each workload.

Trials are made by the same steps for every workload, and what wins on one may lose on another. Once
trials have shown that, each workload is given the steps of the trial that was best there, or the
op as the library does it where none was faster.
"""

import math
import statistics
from typing import NamedTuple

from agents.brief import Brief, Plan
from knowledge.pattern import Step
from tools.facts import WorkloadFacts
from tools.task import PLAYBOOK
from tools.verdict import Trial

# The mean must gain so much over the best trial: less could not be told from noise.
WORTH_ASSEMBLING = 1.02


class _Pick(NamedTuple):
    """A workload's best steps, what they gained there, and the trial that showed it."""

    workload: str
    steps: tuple[Step, ...]
    speedup: float
    trial: int | None


def assemble(brief: Brief, identity: str) -> Plan | None:
    """The plan; None where nothing would be gained, it was tried, or there is one workload.

    Args:
        brief: what is known so far.
        identity: the plan's id.
    """
    own = [t for t in brief.trials if t.speedup is not None and t.candidate.author == PLAYBOOK]
    if not brief.workloads or not own:
        return None
    picks = [_pick(brief, own, place) for place in range(len(brief.workloads))]
    expected = math.exp(statistics.fmean(math.log(pick.speedup) for pick in picks))
    best = max(trial.speedup or 0.0 for trial in brief.trials)
    steps, elsewhere = picks[0].steps, {pick.workload: pick.steps for pick in picks[1:]}
    tried = any(_ways(brief, plan) == (steps, elsewhere) for plan in brief.plans)
    if tried or not any(pick.steps for pick in picks) or expected < best * WORTH_ASSEMBLING:
        return None
    told = "; ".join(f"{p.workload}: {_origin(p)}, {p.speedup:.2f}x" for p in picks)
    labels = [
        plan.labels for plan in brief.plans for p in picks if p.steps and _made(brief, p, plan)
    ]
    return Plan(
        id=identity,
        title="the best of every workload, in one module",
        steps=steps,
        elsewhere=elsewhere,
        expected_speedup=expected,
        arithmetic=f"As measured, each on its own workload: {told}. Their mean is {expected:.2f}x.",
        labels=tuple(dict.fromkeys(label for group in labels for label in group)),
    )


def _pick(brief: Brief, trials: list[Trial], place: int) -> _Pick:
    name = brief.workloads[place].name
    best = _Pick(name, (), _as_given(brief.workloads[place]), None)
    plans = {plan.id: plan for plan in brief.plans}
    for trial in trials:
        timing = trial.timing
        assert timing is not None, "only timed trials are compared"
        speedup = timing.workloads[place].timing.against_best.speedup
        if speedup > best.speedup:
            steps = _ways_at(plans[trial.plan], name, leads=place == 0)
            best = _Pick(name, steps, speedup, trial.number)
    return best


def _as_given(workload: WorkloadFacts) -> float:
    """What the op in eager reads against the workload's fastest baseline: 1 where it is that."""
    rows = {row.name: row.median_ms for row in workload.baselines.rows}
    best, eager = workload.baselines.best, rows.get("eager")
    return best.median_ms / eager if best is not None and best.median_ms and eager else 1.0


def _ways(brief: Brief, plan: Plan) -> tuple[tuple[Step, ...], dict[str, tuple[Step, ...]]]:
    """By which steps a plan makes the leading workload, and each of the others."""
    others = brief.workloads[1:]
    return plan.steps, {one.name: _ways_at(plan, one.name, leads=False) for one in others}


def _ways_at(plan: Plan, workload: str, *, leads: bool) -> tuple[Step, ...]:
    return plan.steps if leads else plan.elsewhere.get(workload, plan.steps)


def _made(brief: Brief, pick: _Pick, plan: Plan) -> bool:
    return any(trial.number == pick.trial and trial.plan == plan.id for trial in brief.trials)


def _origin(pick: _Pick) -> str:
    return f"trial {pick.trial}" if pick.trial is not None else "the library"
