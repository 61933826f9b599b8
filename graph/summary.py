"""From a run's final state to its record."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agents.llm.exchange import Exchange
from graph.accounts import usage_of
from graph.record import RunRecord
from graph.revision import revision
from graph.state import RunState
from graph.workloads import results_of
from tools.judge.combine import combined_baselines, combined_roofline
from tools.verdict import Trial

NAMED = ("kernelwright", "torch", "langgraph", "chromadb", "numpy", "scipy")
INTERRUPTED = "it was interrupted"


def record_of(state: RunState, exchanges: Iterable[Exchange] = ()) -> RunRecord:
    """The record of a finished or interrupted run; what it did not get to is left empty."""
    workloads, confirmation = state.get("workloads", ()), state.get("confirmation")
    return RunRecord(
        run_id=Path(state["run_dir"]).name,
        run_dir=state["run_dir"],
        started=state["started"],
        versions=_versions(),
        task=state["task"],
        device=state["device"],
        facts=state["facts"],
        baselines=combined_baselines(workloads) if workloads else state["baselines"],
        roofline=combined_roofline(workloads) if workloads else state["roofline"],
        plans=state.get("plans", ()),
        refused=state.get("refused", ()),
        trials=_settled(state),
        diagnoses=state.get("diagnoses", ()),
        repairs=state.get("repairs", ()),
        winner=state.get("winner"),
        confirmation=confirmation,
        workloads=results_of(workloads, confirmation.timing if confirmation else None),
        ended=state.get("ended") or INTERRUPTED,
        seconds=state["seconds"],
        usage=usage_of(exchanges, state.get("device_seconds", 0.0), state.get("estimate")),
        unspent=state.get("unspent", ()),
        hints=state.get("hints", ()),
        finished=state.get("concluded", False),
    )


def _settled(state: RunState) -> tuple[Trial, ...]:
    """The trials with the verdicts that stand: the second one of those that fell by it."""
    fallen = state.get("fallen", {})
    return tuple(
        trial.model_copy(update={"verdict": fallen.get(trial.number, trial.verdict)})
        for trial in sorted(state.get("trials", {}).values(), key=lambda trial: trial.number)
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in NAMED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if commit := revision():
        found["commit"] = commit
    return found
