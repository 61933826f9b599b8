"""The graph as `langgraph.json` names it: for LangGraph Studio and `langgraph dev`'s HTTP API.

The server brings threads, checkpoints and streams. What it can't know is done here: a run's input
is read as a task file is, complaints reach the caller, events are kept in the run's folder, and
however a run ends (finished, waiting for a person, cancelled, the server shut down) its judge ends
with it. A run that goes on finds its workbench opened anew.
"""

import asyncio
import functools
import multiprocessing
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph_sdk.runtime import ServerRuntime

from agents.llm.exchange import Unreachable
from graph.attempt import build_attempt
from graph.build import RUNS, wire
from graph.events import kept_in
from graph.folder import RunFolder
from graph.nodes import RunNodes
from graph.settings import RawInput, Settings, entry_of
from graph.state import RunInput, RunState
from graph.workbench import Workbench, Workbenches
from knowledge.catalogue import home_folder
from knowledge.errors import BadInput
from tools.judge.client import JudgeClosed
from tools.secrets import redact
from tools.task import Task

Node = Callable[..., Any]


class ServedBenches(Workbenches):
    """The workbench of one run of the server.

    While it is open, the run's folder is held: a copy of the thread, or a command on a terminal,
    can't work in it at the same time.
    """

    def __init__(self) -> None:
        super().__init__(instruments=True)
        self._held: dict[str, ExitStack] = {}

    def _opened(self, folder: RunFolder, task: Task) -> Workbench:
        folder.adopt(task)
        with ExitStack() as hold:
            hold.enter_context(folder.held())
            bench = super()._opened(folder, task)
            self._held[str(folder.path)] = hold.pop_all()
        return bench

    def close(self, run_dir: str) -> None:
        """End a run's judge, remove its working space, and let go of the folder."""
        super().close(run_dir)
        hold = self._held.pop(run_dir, None)
        if hold is not None:
            shutil.rmtree(RunFolder(Path(run_dir)).scratch, ignore_errors=True)
            hold.close()


class ServedNodes(RunNodes):
    """The nodes of a run whose input is JSON and whose settings are LangGraph's context."""

    def prepare(self, state: RawInput, runtime: Runtime[Any]) -> RunState:  # type: ignore[override]
        """As for any run; a run that can't be begun leaves no folder behind."""
        if state.get("started"):
            raise BadInput(
                "thread",
                "holds a run already.",
                "Start another thread, or fork this one from a checkpoint after `prepare`.",
            )
        entry = entry_of(state, runtime.context)
        own = not entry.run_dir
        if own:
            folder = RunFolder.create(self._runs, entry.task)
        else:
            folder = RunFolder(Path(entry.run_dir).resolve())
            _check_free(folder)
            folder.adopt(entry.task)
        run_dir = str(folder.path)
        try:
            with kept_in(folder.events):
                prepared = super().prepare(entry.model_copy(update={"run_dir": run_dir}))
        except (BadInput, JudgeClosed):
            self._benches.close(run_dir)
            if own:
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
        return {**prepared, "task": entry.task}


def _check_free(folder: RunFolder) -> None:
    """Complain of a folder that a caller chose and that can't be had.

    Raises:
        BadInput: a run lies in it, or the server would be started anew by what is written there.
    """
    if folder.trials.is_dir() and any(folder.trials.iterdir()):
        raise BadInput("input: run_dir", "holds a run already.", "Leave it out, or name another.")
    if _reloads() and Path.cwd() in folder.path.parents:
        raise BadInput(
            "input: run_dir",
            "lies in a folder that the server watches: a kernel that is written there restarts it.",
            "Leave it out, or start the server with --no-reload.",
        )


def _reloads() -> bool:
    """Whether this server is started anew when a Python file under its folder changes."""
    return multiprocessing.parent_process() is not None


def runs_folder() -> Path:
    """Where a server makes its runs' folders: `runs/`, unless kernels there would restart it."""
    return home_folder().with_name("runs") if _reloads() else RUNS


def telling(node: Node) -> Node:
    """A node that keeps its events in the run's folder, and whose complaints the server passes on.

    The server tells a caller nothing of exceptions that it does not know; it knows ValueError.
    """

    @functools.wraps(node)
    def told(state: Any, *given: Any, **named: Any) -> Any:
        try:
            run_dir = state.get("run_dir")
            if not run_dir or not Path(run_dir).is_dir():
                return node(state, *given, **named)
            with kept_in(RunFolder(Path(run_dir)).events):
                return node(state, *given, **named)
        except Unreachable as error:
            raise ValueError(f"parked, and can be resumed: {redact(str(error))}") from error
        except BadInput as error:
            raise ValueError(str(error)) from None

    return told


def build_served(
    benches: Workbenches, runs: Path
) -> CompiledStateGraph[RunState, Any, RunInput, RunState]:
    """The graph of one run, in the form in which a server gives it."""
    nodes = ServedNodes(benches, runs)
    wired = wire(nodes, build_attempt(benches, telling), Settings, telling)
    return wired.compile(name="kernelwright")


@asynccontextmanager
async def graph(
    runtime: ServerRuntime[Any],
) -> AsyncIterator[CompiledStateGraph[RunState, Any, RunInput, RunState]]:
    """The graph for as long as the server has use of it: to run it, or to look at it."""
    if runtime.execution_runtime is None:
        yield _TO_LOOK_AT
        return
    benches = ServedBenches()
    # A thread of its own: the server's may all be waiting for the judge that is ended here.
    with ThreadPoolExecutor(1, thread_name_prefix="kernelwright") as aside:
        loop = asyncio.get_running_loop()
        try:
            yield await loop.run_in_executor(aside, build_served, benches, runs_folder())
        finally:
            await asyncio.shield(loop.run_in_executor(aside, _end, benches))


def _end(benches: Workbenches) -> None:
    """End the run's judge, whatever it is at, and let go of the folder."""
    benches.abandon()
    benches.close_all()


_TO_LOOK_AT = build_served(Workbenches(), RUNS)
