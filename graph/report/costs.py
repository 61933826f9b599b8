"""What the report says of models: what they took, role by role, and what each mind added."""

from typing import NamedTuple

from graph.record import BASELINE_PLAN, RunRecord, Share
from graph.report.words import clip, estimate_text, money_text, times
from tools.task import PLAYBOOK
from tools.verdict import Correct, Trial


class RoleCost(NamedTuple):
    """One row: what a role took of a model."""

    role: str
    model: str
    calls: str
    tokens: str
    money: str
    seconds: str


def spent_by_role(record: RunRecord) -> list[RoleCost]:
    """A row for each role and model that was asked."""
    return [
        RoleCost(
            role=share.role,
            model=share.model,
            calls=f"{share.calls}",
            tokens=f"{share.input_tokens:,} in, {share.output_tokens:,} out",
            money=_money(share),
            seconds=f"{share.seconds:.0f} s",
        )
        for share in record.usage.shares
    ]


def _money(share: Share) -> str:
    return "price unknown" if share.usd is None else money_text(share.usd)


class Added(NamedTuple):
    """One row: what came of the plans of one mind."""

    maker: str
    plans: int
    trials: int
    correct: int
    best: str
    gain: str


def added_by_maker(record: RunRecord) -> list[Added]:
    """The playbook and each model, in the order in which they began; best is as first measured.

    `gain` is over the best that all before had measured.
    """
    made = [plan for plan in record.plans if plan.id != BASELINE_PLAN]
    makers = {plan.id: plan.maker for plan in made}
    rows: list[Added] = []
    before = 0.0
    for maker in dict.fromkeys(plan.maker for plan in made):
        trials = [trial for trial in record.trials if makers.get(trial.plan) == maker]
        best = max((trial.speedup or 0.0 for trial in trials), default=0.0)
        rows.append(
            Added(
                maker=maker,
                plans=sum(plan.maker == maker for plan in made),
                trials=len(trials),
                correct=sum(isinstance(trial.verdict, Correct) for trial in trials),
                best=times(best) if best else "–",
                gain=times(best / before) if before and best > before else "–",
            )
        )
        before = max(before, best)
    return rows


def only_playbook(record: RunRecord) -> bool:
    """Whether no model had a part in the run."""
    return not record.usage.shares and all(plan.maker == PLAYBOOK for plan in record.plans)


def estimate(record: RunRecord) -> str:
    """The estimate from before the start; empty where there was none."""
    found = record.usage.estimate
    return "" if found is None else estimate_text(found, record.task.budget)


def unspent(record: RunRecord) -> list[tuple[str, str]]:
    """Plans that were not carried out, and why."""
    titles = {plan.id: plan.title for plan in record.plans}
    return [(titles.get(one.plan, one.plan), clip(one.reason)) for one in record.unspent]


def maker_of(record: RunRecord, trial: Trial) -> str:
    """The model that thought of a trial; empty for the playbook."""
    found = next((plan.maker for plan in record.plans if plan.id == trial.plan), PLAYBOOK)
    return "" if found == PLAYBOOK else found
