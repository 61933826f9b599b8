"""The nodes of the run. They return new values; the workbench holds the tools."""

import statistics
from datetime import UTC, datetime
from pathlib import Path

from agents.brief import Brief, Plan, promises_enough
from agents.llm.exchange import Spent
from graph.accounts import estimate_of, usage_of
from graph.approval import decide
from graph.attempt import announce
from graph.conclude import confirm_slower, confirm_winner, is_no_slower, most_promising, remember
from graph.events import (
    Concluded,
    Estimated,
    NodeStarted,
    Note,
    Planned,
    Prepared,
    Spending,
    TrialJudged,
)
from graph.fallback import keep_baseline
from graph.folder import RunFolder
from graph.journal import at_work
from graph.record import Unspent
from graph.report.write import write_report
from graph.shipping import shipment_of
from graph.state import RunInput, RunState
from graph.strategy import ranked, strategy_for
from graph.summary import record_of
from graph.workbench import Workbench, Workbenches
from tools.export import export
from tools.judge.combine import combined_baselines, combined_roofline
from tools.task import PLAYBOOK, device_of, language_of, subject_digest
from tools.verdict import Trial

ROOF_REACHED = 0.95
NOTHING_LEFT = "nothing worth trying is left"
NO_ROOM = "too little time or too few trials were left for it"
WITHIN_NOISE = "what is left promises no gain that could be told from noise"


def brief_of(state: RunState) -> Brief:
    """What agents are told of the run so far."""
    task, trials = state["task"], state.get("trials", {})
    device_seconds = task.budget.device_seconds
    return Brief(
        task=task,
        device=state["device"],
        facts=state["facts"],
        baselines=state["baselines"],
        roofline=state["roofline"],
        workloads=state.get("workloads", ()),
        plans=state.get("plans", ()),
        trials=tuple(trials.values()),
        diagnoses=state.get("diagnoses", ()),
        parents=state.get("parents", ()),
        hints=state.get("hints", ()),
        trials_left=task.budget.trials - len(trials),
        seconds_left=task.budget.minutes * 60 - state.get("seconds", 0.0),
        device_seconds_left=(
            None if device_seconds is None else device_seconds - state.get("device_seconds", 0.0)
        ),
    )


class RunNodes:
    """The nodes of the main graph."""

    def __init__(self, benches: Workbenches, runs: Path) -> None:
        self._benches = benches
        self._runs = runs

    def prepare(self, state: RunInput) -> RunState:
        """Make the folder, find the device, trace the reference, measure baselines and roofline."""
        task = state.task
        device = device_of(task, "task: target")
        language_of(task, device, "task")
        self._benches.check(task, "task")
        run_dir = state.run_dir or str(RunFolder.create(self._runs, task).path)
        announce(NodeStarted(node="prepare", detail=task.name))
        bench = self._benches.of(run_dir, task)
        estimate = estimate_of(task, bench.models, bench.price_of)
        if estimate is not None:
            announce(Estimated(estimate=estimate, budget=task.budget))
        facts = bench.judge.examine()
        baselines, roofline = bench.judge.survey()
        workloads = bench.judge.workloads()
        announce(
            Prepared(
                device=device.title,
                baselines=combined_baselines(workloads) if workloads else baselines,
                roofline=combined_roofline(workloads) if workloads else roofline,
                untraceable=facts.untraceable,
                cautions=facts.cautions,
            )
        )
        return {
            "run_dir": run_dir,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "estimate": estimate,
            "device": device,
            "subject": subject_digest(task),
            "facts": facts,
            "baselines": baselines,
            "roofline": roofline,
            "workloads": workloads,
            **_clock(bench),
        }

    def plan(self, state: RunState) -> RunState:
        """Ask the planner, unless a budget is spent or the roofline reached."""
        bench = self._bench(state)
        clock = _clock(bench)
        brief = brief_of({**state, **clock})
        ended = state.get("spent", "") or budget_spent(brief) or _roof_reached(brief)
        if ended:
            return {"next_plans": (), "ended": ended, **clock}
        announce(NodeStarted(node="plan"))
        try:
            with at_work("planner"):
                planning = bench.crew.planner.plan(brief)
        except Spent as error:
            return {"next_plans": (), "ended": str(error), "spent": str(error), **_clock(bench)}
        _tell(bench)
        hopeful = tuple(plan for plan in planning.plans if promises_enough(plan, brief))
        aside = tuple(plan for plan in planning.plans if plan not in hopeful)
        plans = hopeful[: affordable(brief)]
        # The playbook proposes again what is dropped here; a model would have to be paid again.
        spare = tuple(plan for plan in hopeful[len(plans) :] if plan.maker != PLAYBOOK)
        announce(Planned(plans=plans, refused=planning.refused))
        return {
            "plans": (*plans, *spare, *aside),
            "next_plans": plans,
            "refused": planning.refused,
            "unspent": (*_unspent(spare, NO_ROOM), *_unspent(aside, WITHIN_NOISE)),
            "ended": "" if plans else WITHIN_NOISE if aside else NOTHING_LEFT,
            **_clock(bench),
        }

    def approve(self, state: RunState) -> RunState:
        """Let a person say of each plan whether it is spent."""
        brief = brief_of(state)
        decided = decide(state["next_plans"], brief.trials_left)
        bench = self._bench(state)
        # A person's time to think is not the run's.
        bench.meter.forget()
        return {
            "plans": decided.edited,
            "next_plans": decided.plans,
            "unspent": decided.unspent,
            "hints": decided.hints,
        }

    def select(self, state: RunState) -> RunState:
        """Choose which trials the next plans build on."""
        announce(NodeStarted(node="select"))
        task, trials = state["task"], list(state.get("trials", {}).values())
        diagnoses = state.get("diagnoses", ())
        return {"parents": strategy_for(task).parents(trials, diagnoses, task.width)}

    def confirm(self, state: RunState) -> RunState:
        """Measure the winner anew; where none is faster, the fastest baseline takes its place."""
        bench, trials = self._bench(state), list(state.get("trials", {}).values())
        announce(NodeStarted(node="confirm"))
        winner, confirmation, fallen, notes = confirm_winner(bench, trials)
        trials = [trial for trial in trials if trial.number not in fallen]
        if winner is None:
            winner = most_promising(trials, state.get("plans", ()))
        kept: RunState = {}
        if ranked(trials) and not is_no_slower(confirmation):
            workloads = state.get("workloads", ())
            baselines = combined_baselines(workloads) if workloads else state["baselines"]
            found = keep_baseline(bench, state["facts"].source, baselines)
            if not isinstance(found, str):
                plan, trial, confirmation = found
                winner = trial.number
                kept = {"plans": (plan,), "trials": {trial.number: trial}}
                announce(TrialJudged.of(trial))
            else:
                notes = (*notes, found)
                if confirmation is None:
                    winner, confirmation = confirm_slower(bench, trials) or (winner, None)
        return {
            **kept,
            "winner": winner,
            "confirmation": confirmation,
            "fallen": fallen,
            "ended": "; ".join((state["ended"], *notes)),
            **_clock(bench),
        }

    def conclude(self, state: RunState) -> RunState:
        """Export the winner, write the report, remember what was learned."""
        bench = self._bench(state)
        announce(NodeStarted(node="conclude"))
        final: RunState = {"concluded": True, **_clock(bench)}
        record = record_of({**state, **final}, bench.journal.exchanges())
        if (shipment := shipment_of(record)) is not None:
            export(shipment, bench.folder.best)
        write_report(record, bench.folder.path)
        remember(bench, record)
        _tell(bench)
        announce(
            Concluded(
                status=record.status,
                ended=record.ended,
                trials=len(record.tried),
                seconds=record.seconds,
            )
        )
        self._benches.close(state["run_dir"])
        return final

    def _bench(self, state: RunState) -> Workbench:
        return self._benches.of(state["run_dir"], state["task"])


def _clock(bench: Workbench) -> RunState:
    """What the clock says, on the disk too."""
    bench.meter.lap("node")
    return {"seconds": bench.meter.wall_seconds, "device_seconds": bench.meter.device_seconds}


def _tell(bench: Workbench) -> None:
    """What a person should know that no other event says, and what models took so far."""
    for sentence in bench.complaints():
        announce(Note(text=sentence))
    usage = usage_of(bench.journal.exchanges(), bench.meter.device_seconds, None)
    announce(Spending(usage=usage, seconds=bench.meter.wall_seconds))


def _unspent(plans: tuple[Plan, ...], reason: str) -> tuple[Unspent, ...]:
    return tuple(Unspent(plan=plan.id, reason=reason) for plan in plans)


def affordable(brief: Brief) -> int:
    """How many plans to try next: no more than there is time for, going by the trials so far."""
    most = min(brief.task.width, brief.trials_left)
    if not brief.trials:
        return most if brief.seconds_left > 0 else 1
    usual = statistics.median(trial.seconds for trial in brief.trials)
    left = brief.seconds_left
    if brief.device_seconds_left is not None:
        left = min(left, brief.device_seconds_left)
    return max(1, min(most, int(left / max(usual, 0.001))))


def budget_spent(brief: Brief) -> str:
    """Which budget ends the run, as a clause; empty while none does."""
    if brief.trials_left < 1:
        return f"the budget of {brief.task.budget.trials} trials is spent"
    # A slow op may take all of a minute before anything was tried: then one plan is, all the same.
    if brief.seconds_left <= 0 and brief.trials:
        return f"the budget of {brief.task.budget.minutes:g} minutes is spent"
    left = brief.device_seconds_left
    if left is not None and left <= 0 and brief.trials:
        return f"the budget of {brief.task.budget.device_seconds:g} seconds on the device is spent"
    return ""


def _roof_reached(brief: Brief) -> str:
    fractions = [_fraction(brief, trial) for trial in brief.trials if trial.profile is not None]
    if max(fractions, default=0.0) >= ROOF_REACHED:
        return f"the best kernel is at {max(fractions):.0%} of the roofline"
    return ""


def _fraction(brief: Brief, trial: Trial) -> float:
    """How much of the roofline a trial reached; of several workloads, on the one furthest off."""
    assert trial.profile is not None, "only what was profiled has reached anything"
    if not brief.workloads or trial.timing is None:
        return trial.profile.roofline_fraction
    reached = zip(brief.workloads, trial.timing.workloads, strict=True)
    return min(one.roofline.fraction(timed.timing.candidate_ms) for one, timed in reached)
