"""The graph, wired: `prepare -> plan -> attempt -> select -> plan ... -> conclude`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from graph.attempt import build_attempt, unguarded
from graph.nodes import RunNodes
from graph.routes import after_approve, after_plan
from graph.state import AttemptOutput, AttemptState, RunInput, RunState
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
    benches = benches or Workbenches(instruments=True)
    graph = wire(RunNodes(benches, runs), build_attempt(benches))
    return graph.compile(checkpointer=checkpointer)


def wire(
    nodes: RunNodes,
    attempt: CompiledStateGraph[AttemptState, None, AttemptState, AttemptOutput],
    context: type[Any] | None = None,
    guard: Callable[[Any], Any] = unguarded,
) -> StateGraph[RunState, Any, RunInput, RunState]:
    """The run, not compiled yet.

    Args:
        nodes: the stations.
        attempt: the compiled subgraph.
        context: the schema of LangGraph's context; None: there is none.
        guard: what each node is wrapped into.
    """
    graph: StateGraph[RunState, Any, RunInput, RunState] = StateGraph(
        RunState, context_schema=context, input_schema=RunInput
    )
    graph.add_node("prepare", guard(nodes.prepare))
    graph.add_node("plan", guard(nodes.plan))
    graph.add_node("approve", guard(nodes.approve))
    graph.add_node("attempt", attempt)
    graph.add_node("select", guard(nodes.select))
    graph.add_node("confirm", guard(nodes.confirm))
    graph.add_node("conclude", guard(nodes.conclude))
    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "plan")
    graph.add_conditional_edges("plan", after_plan, ["approve", "attempt", "confirm"])
    graph.add_conditional_edges("approve", after_approve, ["attempt", "plan"])
    graph.add_edge("attempt", "select")
    graph.add_edge("select", "plan")
    graph.add_edge("confirm", "conclude")
    graph.add_edge("conclude", END)
    return graph
