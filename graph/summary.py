"""From a run's final state to its record."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agents.llm.exchange import Exchange
from graph.accounts import usage_of
from graph.record import RunRecord
from graph.state import RunState

NAMED = ("kernelwright", "torch", "langgraph", "chromadb", "numpy", "scipy")
INTERRUPTED = "it was interrupted"


def record_of(state: RunState, exchanges: Iterable[Exchange] = ()) -> RunRecord:
    """The record of a finished or interrupted run; what it did not get to is left empty."""
    return RunRecord(
        run_id=Path(state["run_dir"]).name,
        run_dir=state["run_dir"],
        started=state["started"],
        versions=_versions(),
        task=state["task"],
        device=state["device"],
        facts=state["facts"],
        baselines=state["baselines"],
        roofline=state["roofline"],
        plans=state.get("plans", ()),
        refused=state.get("refused", ()),
        trials=tuple(sorted(state.get("trials", {}).values(), key=lambda trial: trial.number)),
        diagnoses=state.get("diagnoses", ()),
        repairs=state.get("repairs", ()),
        winner=state.get("winner"),
        confirmation=state.get("confirmation"),
        ended=state.get("ended") or INTERRUPTED,
        seconds=state["seconds"],
        usage=usage_of(exchanges, state.get("device_seconds", 0.0), state.get("estimate")),
        unspent=state.get("unspent", ()),
        hints=state.get("hints", ()),
        finished=state.get("concluded", False),
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in NAMED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
