"""The nodes of the run. They return new values; the workbench holds the tools."""

import statistics
from datetime import UTC, datetime
from pathlib import Path

from agents.brief import Brief, Plan
from graph.attempt import announce
from graph.conclude import confirm_winner, is_no_slower, most_promising, remember
from graph.events import Concluded, NodeStarted, Note, Planned, Prepared, TrialJudged
from graph.fallback import keep_baseline
from graph.folder import RunFolder
from graph.report.write import write_report
from graph.state import RunInput, RunState
from graph.strategy import ranked, strategy_for
from graph.summary import record_of
from graph.workbench import Workbench, Workbenches
from tools.export import export
from tools.task import device_of, language_of
from tools.verdict import Compiled, Correct

ROOF_REACHED = 0.95


def brief_of(state: RunState, seconds: float | None = None) -> Brief:
    """What agents are told of the run so far; `seconds` worked, if more than the state knows."""
    task, trials = state["task"], state.get("trials", {})
    worked = state.get("seconds", 0.0) if seconds is None else seconds
    return Brief(
        task=task,
        device=state["device"],
        facts=state["facts"],
        baselines=state["baselines"],
        roofline=state["roofline"],
        plans=state.get("plans", ()),
        trials=tuple(trials.values()),
        diagnoses=state.get("diagnoses", ()),
        parents=state.get("parents", ()),
        trials_left=task.budget.trials - len(trials),
        seconds_left=task.budget.minutes * 60 - worked,
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
        run_dir = state.run_dir or str(RunFolder.create(self._runs, task).path)
        announce(NodeStarted(node="prepare", detail=task.name))
        bench = self._benches.of(run_dir, task)
        facts = bench.judge.examine()
        baselines, roofline = bench.judge.survey()
        announce(
            Prepared(
                device=device.title,
                baselines=baselines,
                roofline=roofline,
                untraceable=facts.untraceable,
                cautions=facts.cautions,
            )
        )
        return {
            "run_dir": run_dir,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": device,
            "facts": facts,
            "baselines": baselines,
            "roofline": roofline,
            "seconds": bench.watch.lap(),
        }

    def plan(self, state: RunState) -> RunState:
        """Ask the planner, unless a budget is spent or the roofline reached."""
        bench = self._bench(state)
        seconds = state["seconds"] + bench.watch.lap()
        brief = brief_of(state, seconds)
        ended = budget_spent(brief) or _roof_reached(brief)
        if ended:
            return {"next_plans": (), "ended": ended, "seconds": seconds}
        announce(NodeStarted(node="plan"))
        planning = bench.crew.planner.plan(brief)
        _tell_complaints(bench)
        plans: tuple[Plan, ...] = planning.plans[: affordable(brief)]
        announce(Planned(plans=plans, refused=planning.refused))
        return {
            "plans": plans,
            "next_plans": plans,
            "refused": planning.refused,
            "seconds": seconds,
            "ended": "" if plans else "nothing worth trying is left",
        }

    def select(self, state: RunState) -> RunState:
        """Choose which trials the next plans build on."""
        task = state["task"]
        return {"parents": strategy_for(task).parents(list(state["trials"].values()), task.width)}

    def conclude(self, state: RunState) -> RunState:
        """Confirm the winner anew, export it, write the report, remember what was learned."""
        bench = self._bench(state)
        announce(NodeStarted(node="conclude"))
        winner, confirmation, notes = confirm_winner(bench, list(state.get("trials", {}).values()))
        if winner is None:
            winner = most_promising(list(state.get("trials", {}).values()), state.get("plans", ()))
        kept: RunState = {}
        right = ranked(list(state.get("trials", {}).values()))
        if right and not is_no_slower(confirmation):
            found = keep_baseline(bench, state["facts"].source, state["baselines"])
            if found is not None:
                plan, trial, confirmation = found
                winner = trial.number
                kept = {"plans": (plan,), "trials": {trial.number: trial}}
                announce(TrialJudged.of(trial))
        seconds = state["seconds"] + bench.watch.lap()
        final: RunState = {
            "winner": winner,
            "confirmation": confirmation,
            "seconds": seconds,
            "ended": "; ".join((state["ended"], *notes)),
        }
        stored: RunState = {
            "plans": (*state.get("plans", ()), *kept.get("plans", ())),
            "trials": {**state.get("trials", {}), **kept.get("trials", {})},
        }
        record = record_of({**state, **stored, **final})
        verdict = confirmation or (record.trial(winner).verdict if winner is not None else None)
        if winner is not None and isinstance(verdict, Correct | Compiled):
            export(
                record.trial(winner).candidate,
                state["facts"].source,
                verdict,
                bench.folder.best,
                subject=state["task"].name,
                device=state["device"].title,
            )
        write_report(record, bench.folder.path)
        remember(bench, record)
        _tell_complaints(bench)
        announce(
            Concluded(
                status=record.status, ended=record.ended, trials=len(record.trials), seconds=seconds
            )
        )
        self._benches.close(state["run_dir"])
        return {**final, **kept}

    def _bench(self, state: RunState) -> Workbench:
        return self._benches.of(state["run_dir"], state["task"])


def _tell_complaints(bench: Workbench) -> None:
    for sentence in bench.library.memory.complaints():
        announce(Note(text=sentence))


def affordable(brief: Brief) -> int:
    """How many plans to try next: no more than there is time for, going by the trials so far."""
    most = min(brief.task.width, brief.trials_left)
    if not brief.trials:
        return most if brief.seconds_left > 0 else 1
    usual = statistics.median(trial.seconds for trial in brief.trials)
    return max(1, min(most, int(brief.seconds_left / max(usual, 0.001))))


def budget_spent(brief: Brief) -> str:
    """Which budget ends the run, as a clause; empty while none does."""
    if brief.trials_left < 1:
        return f"the budget of {brief.task.budget.trials} trials is spent"
    # A slow op may take all of a minute before anything was tried: then one plan is, all the same.
    if brief.seconds_left <= 0 and brief.trials:
        return f"the budget of {brief.task.budget.minutes:g} minutes is spent"
    return ""


def _roof_reached(brief: Brief) -> str:
    fractions = [t.profile.roofline_fraction for t in brief.trials if t.profile is not None]
    if max(fractions, default=0.0) >= ROOF_REACHED:
        return f"the best kernel is at {max(fractions):.0%} of the roofline"
    return ""
