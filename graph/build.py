"""The graph, wired: `prepare -> plan -> attempt -> select -> plan ... -> conclude`."""

from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from graph.attempt import build_attempt
from graph.nodes import RunNodes
from graph.routes import after_approve, after_plan
from graph.state import RunInput, RunState
from graph.workbench import Workbenches

RUNS = Path("runs")


def build_graph(
    benches: Workbenches | None = None,
    runs: Path = RUNS,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> CompiledStateGraph[RunState, None, RunInput, RunState]:
    """Compile the run.

    Args:
        benches: the tools of each run; made on demand if not given.
        runs: where a run's folder is made when the input names none.
        checkpointer: keeps the state after every node; None leaves that to the host.
    """
    benches = benches or Workbenches()
    nodes = RunNodes(benches, runs)
    graph = StateGraph(RunState, input_schema=RunInput)
    graph.add_node("prepare", nodes.prepare)
    graph.add_node("plan", nodes.plan)
    graph.add_node("approve", nodes.approve)
    graph.add_node("attempt", build_attempt(benches))
    graph.add_node("select", nodes.select)
    graph.add_node("confirm", nodes.confirm)
    graph.add_node("conclude", nodes.conclude)
    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "plan")
    graph.add_conditional_edges("plan", after_plan, ["approve", "attempt", "confirm"])
    graph.add_conditional_edges("approve", after_approve, ["attempt", "plan"])
    graph.add_edge("attempt", "select")
    graph.add_edge("select", "plan")
    graph.add_edge("confirm", "conclude")
    graph.add_edge("conclude", END)
    return graph.compile(checkpointer=checkpointer)
