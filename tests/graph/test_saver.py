"""Checkpoints of a run: few, and enough to go on from."""

import operator
import sqlite3
from pathlib import Path
from typing import Annotated, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from graph.saver import LastCheckpoints


class Total(TypedDict, total=False):
    numbers: Annotated[list[int], operator.add]


class Part(TypedDict, total=False):
    number: int
    numbers: list[int]


def build(saver: LastCheckpoints, fail_at: int = -1) -> object:
    """Rounds of two parts each, until ten numbers are there; asks once, and may fail once."""

    def first(part: Part) -> Part:
        if part["number"] == fail_at:
            raise RuntimeError("killed")
        return {"number": part["number"]}

    def second(part: Part) -> Part:
        if part["number"] == 4:
            interrupt("go on?")
        return {"numbers": [part["number"]]}

    parts = StateGraph(Part)
    parts.add_node("first", first)
    parts.add_node("second", second)
    parts.add_edge(START, "first")
    parts.add_edge("first", "second")

    def spread(state: Total) -> list[Send] | str:
        done = len(state.get("numbers", []))
        return END if done >= 10 else [Send("part", {"number": done + n}) for n in (0, 1)]

    whole = StateGraph(Total)
    whole.add_node("plan", lambda state: {})
    whole.add_node("part", parts.compile())
    whole.add_edge(START, "plan")
    whole.add_edge("part", "plan")
    whole.add_conditional_edges("plan", spread, ["part", END])
    return whole.compile(checkpointer=saver)


def test_few_are_kept_and_a_run_goes_on_from_them(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "checkpoint.sqlite", check_same_thread=False)
    saver = LastCheckpoints(connection)
    config = {"configurable": {"thread_id": "run"}}
    failing = build(saver, fail_at=7)
    failing.invoke({"numbers": []}, config, durability="sync")  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="killed"):
        failing.invoke(Command(resume="yes"), config, durability="sync")  # type: ignore[attr-defined]
    graph = build(saver)
    graph.invoke(None, config, durability="sync")  # type: ignore[attr-defined]
    values = graph.get_state(config).values  # type: ignore[attr-defined]
    assert sorted(values["numbers"]) == list(range(10))
    assert connection.execute("SELECT count(*) FROM checkpoints").fetchone() == (1,)
    connection.close()
