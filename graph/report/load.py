"""Reads a run's record back from its folder alone: no judge, no library, no model.

A finished run's `report.json` is its record. Of a run that stopped, or was killed, the checkpoint
may know more.
"""

import sqlite3
from pathlib import Path
from typing import NamedTuple

from langchain_core.runnables import RunnableConfig
from pydantic import ValidationError

from agents.llm.exchange import Exchange
from graph.build import build_graph
from graph.drive import checkpointer, state_so_far
from graph.folder import RunFolder
from graph.journal import legible_exchanges
from graph.record import SCHEMA, RunRecord
from graph.report.listing import first_problem
from graph.summary import record_of
from graph.workbench import Workbenches
from knowledge.errors import BadInput


class Loaded(NamedTuple):
    """A run's record, and in sentences what its folder lacks."""

    record: RunRecord
    notes: tuple[str, ...]


def load_record(path: Path) -> Loaded:
    """The record of the run in a folder, wherever that was moved to.

    Raises:
        BadInput: it is no run's folder, or nothing in it was measured.
    """
    if not path.is_dir():
        raise BadInput(str(path), "is not a folder.", "Give the folder of a run.")
    written, why = _written(path / "report.json")
    if written is not None and written.finished:
        return Loaded(_moved(written, path), ())
    found = _checkpointed(path)
    if found is not None and (written is None or len(found.trials) > len(written.trials)):
        note = f"report.json {why}; what the checkpoint holds is shown" if why else ""
        return Loaded(_moved(found, path), (note,) if note else ())
    if written is not None:
        return Loaded(_moved(written, path), ())
    if not (path / "task.yaml").exists() and not (path / "report.json").exists():
        raise BadInput(
            str(path), "is not the folder of a run.", "It should hold report.json or task.yaml."
        )
    raise BadInput(
        str(path),
        f"report.json {why}, and no checkpoint got as far as measuring the reference.",
        f"Go on with: {RunFolder(path).going_on}",
    )


def _written(path: Path) -> tuple[RunRecord | None, str]:
    """What `report.json` says, or why it says nothing, as the end of a sentence."""
    try:
        return RunRecord.model_validate_json(path.read_bytes()), ""
    except FileNotFoundError:
        return None, "is not there"
    except OSError as error:
        return None, f"cannot be read ({error.strerror})"
    except ValidationError as error:
        return None, f"is no record of schema {SCHEMA} ({first_problem(error)})"


def _moved(record: RunRecord, path: Path) -> RunRecord:
    """The record, with the place where its folder lies now."""
    return record.model_copy(update={"run_dir": str(path)})


def _checkpointed(path: Path) -> RunRecord | None:
    """The record of what the checkpoint holds; None where that is not enough for one."""
    folder = RunFolder(path)
    if not folder.checkpoint.is_file():
        return None
    try:
        with checkpointer(folder) as saver:
            # A run's thread is named as its folder was when it began.
            latest = next(saver.list(None, limit=1), None)
            if latest is None:
                return None
            thread = latest.config["configurable"]["thread_id"]
            config: RunnableConfig = {"configurable": {"thread_id": thread}}
            # Benches are opened by nodes, and none is run here.
            graph = build_graph(Workbenches(), checkpointer=saver)
            state = state_so_far(graph.get_state(config, subgraphs=True))
        if "facts" not in state or "seconds" not in state:
            return None
        return record_of(state, _exchanges(folder.exchanges))
    # A checkpoint of another release may name what is no longer there.
    except (sqlite3.Error, ValidationError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _exchanges(path: Path) -> tuple[Exchange, ...]:
    """What passed between roles and models, as far as it can be read."""
    try:
        return tuple(legible_exchanges(path))
    except OSError:
        return ()
