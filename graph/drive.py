"""Drives a run's graph in this process: checkpoints, events, questions to a person, and its stop.

However a run stops, what was finished is on the disk, and a report says what there is so far. The
commands `work` in the main thread; whoever serves several runs has each `carry_out` in its own.
"""

import errno
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command, StateSnapshot

from agents.brief import GUEST
from agents.llm.exchange import Exchange, Unreachable
from graph.approval import Request
from graph.build import build_graph
from graph.endings import endings, heeding
from graph.events import Event, Note, append_event
from graph.folder import RunFolder
from graph.guest import WANTED
from graph.journal import legible_exchanges
from graph.record import RunRecord
from graph.report.write import write_report
from graph.saver import LastCheckpoints
from graph.screen import Screen
from graph.state import (
    STORED,
    AttemptState,
    RunInput,
    RunState,
    add_trials,
    append_diagnoses,
    append_plans,
    append_repairs,
)
from graph.summary import record_of
from graph.terminal import ask, check_terminal
from graph.tracing import traced
from graph.workbench import Stopping, Workbenches
from knowledge.errors import BadInput
from knowledge.experience.memory import is_damage
from tools.judge.client import JudgeClosed
from tools.secrets import redact
from tools.task import Task, subject_digest

# Steps of the graph; a round is four of them, and budgets end a run long before.
RECURSION_LIMIT = 100_000
# What a full disk, or a quota that is spent, says to whoever writes.
FULL = (errno.ENOSPC, errno.EDQUOT)


class Interrupted(Exception):
    """The run stopped before its end; what was finished is in the checkpoint, and in its report."""

    def __init__(self, folder: RunFolder, why: str) -> None:
        self.folder = folder
        self.why = why
        super().__init__(f"{why}; {way_on(folder)}")


def way_on(folder: RunFolder) -> str:
    """A clause on how a run goes on that stopped before its end."""
    return f"go on with: {folder.going_on}"


class Audience(Protocol):
    """Who watches a run, and has a say where it asks."""

    def handle(self, event: Event) -> None:
        """Hear of one event, on the thread that drives the run."""

    def answer(self, asked: Any) -> Any:
        """What the run is resumed with, where it interrupted itself with `asked`.

        Raises:
            Stopping: nobody answers, and the run stops here.
        """


class Terminal:
    """A person at a terminal, who sees a screen and says a word on each plan."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def handle(self, event: Event) -> None:
        """Show it."""
        self._screen.handle(event)

    def answer(self, asked: Any) -> Any:
        """Ask the person.

        Raises:
            BadInput: nobody sits there.
            Stopping: the person ended the input.
        """
        check_terminal()
        with self._screen.aside() as console:
            try:
                return ask(Request.model_validate(asked), console)
            except EOFError as error:
                raise Stopping("the input ended") from error


def work(
    folder: RunFolder,
    task: Task,
    entry: RunInput | None,
    *,
    quiet: bool,
    benches: Workbenches | None = None,
) -> RunRecord:
    """Run the graph to its end, showing and keeping every event.

    Args:
        folder: of the run.
        task: what is done in it.
        entry: starts the run; None goes on where it stopped.
        quiet: show no progress.
        benches: the run's tools; the usual ones if not given.

    Raises:
        BadInput: the task can't be done; a run that was just started leaves nothing behind.
        Interrupted: it was stopped, or no model could be reached.
    """
    benches = benches or Workbenches(instruments=True)
    with Screen(task, quiet) as screen, _stopping_at_signals(benches):
        try:
            return carry_out(folder, task, entry, benches, Terminal(screen))
        except KeyboardInterrupt as stop:
            # Before the first node, or once more while what was found is written down.
            raise Interrupted(folder, "interrupted") from stop


def carry_out(
    folder: RunFolder,
    task: Task,
    entry: RunInput | None,
    benches: Workbenches,
    audience: Audience,
) -> RunRecord:
    """As `work`, before any audience and from any thread; `benches.abandon()` ends it from others.

    Raises:
        BadInput: as `work`.
        Interrupted: as `work`.
    """
    config: RunnableConfig = {
        "configurable": {"thread_id": folder.path.name},
        "run_name": folder.path.name,
        "recursion_limit": RECURSION_LIMIT,
    }
    # What is swept up at the end must not be swept from under another process.
    with folder.held(), traced() as complaint, _on_a_sound_disk(folder):
        try:
            if complaint:
                _tell(Note(text=complaint), folder, audience)
            with checkpointer(folder) as saver:
                graph = build_graph(benches, checkpointer=saver)
                fresh = entry is not None
                if entry is None and not _has_begun(
                    graph, saver, folder, task, usual=benches.usual
                ):
                    entry = RunInput(task=task, run_dir=str(folder.path))
                try:
                    drive(graph, entry, config, folder, audience)
                except KeyboardInterrupt as stop:
                    raise _stopped(graph, config, folder, "interrupted") from stop
                except (Stopping, JudgeClosed) as stop:
                    raise _stopped(graph, config, folder, str(stop) or "stopped") from stop
                except Unreachable as error:
                    why = f"parked: {redact(str(error))}"
                    raise _stopped(graph, config, folder, why) from error
                except BadInput as error:
                    _stopped(graph, config, folder, str(error))
                    if fresh and "facts" not in graph.get_state(config).values:
                        benches.close_all()
                        shutil.rmtree(folder.path, ignore_errors=True)
                    raise
                state: RunState = graph.get_state(config).values  # type: ignore[assignment]
            return record_of(state, exchanges_in(folder))
        finally:
            benches.close_all()
            shutil.rmtree(folder.scratch, ignore_errors=True)


@contextmanager
def _on_a_sound_disk(folder: RunFolder) -> Iterator[None]:
    """Say in one line that the disk is full, or that the checkpoint is no database any more.

    Raises:
        BadInput: the checkpoint can't be read.
        Interrupted: there is no room left.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if _is_full(error):
            # Nor could a report of what there is be written.
            raise Interrupted(folder, "the disk is full") from error
        if is_damage(error):
            raise BadInput(
                str(folder.checkpoint),
                f"cannot be read ({error}).",
                f"Begin anew: {folder.beginning}",
            ) from error
        raise


def _is_full(error: Exception) -> bool:
    """Whether there is no room left to write to."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _has_begun(
    graph: Any, saver: LastCheckpoints, folder: RunFolder, task: Task, *, usual: bool
) -> bool:
    """Whether there is something to go on with, begun in this place and with this task.

    Args:
        graph: of the run.
        saver: of its checkpoints.
        folder: where it is to go on.
        task: what is to be done there.
        usual: by the crew that the task asks for.

    Raises:
        BadInput: it was begun in another place, with another task or reference, or for a guest.
    """
    latest = next(saver.list(None, limit=1), None)
    if latest is None:
        return False
    # The thread is named as the folder was when the run began.
    thread = latest.config["configurable"]["thread_id"]
    snapshot = graph.get_state({"configurable": {"thread_id": thread}})
    state = snapshot.values
    anew = f"Put that back, or begin a run with it: {folder.beginning}"
    if "run_dir" not in state:
        return False
    if state["run_dir"] != str(folder.path):
        raise BadInput(
            str(folder.path),
            f"was moved or copied: its run began in {state['run_dir']} and goes on only there.",
            "Move it back, or resume that one.",
        )
    begun, given = (one.model_dump(mode="json") for one in (state["task"], task))
    if changed := [key for key in given if begun[key] != given[key]]:
        raise BadInput(
            str(folder.task_file),
            f"was edited: the run was begun with another {', '.join(changed)}.",
            anew,
        )
    read = state.get("subject", "")
    # A new judge would read it as it is now, and the plans are of what it was.
    if read and not state.get("concluded") and read != subject_digest(task):
        file = str(task.reference or task.definition)
        raise BadInput(file, "was edited since the run began.", anew)
    asked = [one.value for node in snapshot.tasks for one in node.interrupts]
    guests = any(plan.maker == GUEST for plan in state.get("plans", ()))
    if usual and snapshot.next and (guests or any(one["kind"] == WANTED for one in asked)):
        raise BadInput(
            str(folder.path),
            "was begun by start_task: whoever called writes its kernels.",
            f"Go on over MCP: start_task with resume={folder.path.name}.",
        )
    return True


def drive(
    graph: Any,
    entry: RunInput | None,
    config: RunnableConfig,
    folder: RunFolder,
    audience: Audience,
) -> None:
    """Run the graph until it has nothing left to do or to ask."""
    given: RunInput | Command[Any] | None = entry
    while True:
        # A node's result is on the disk before the next node starts.
        stream = graph.stream(
            given, config, stream_mode="custom", subgraphs=True, durability="sync"
        )
        # However this is left: nodes at work end while there is a checkpoint to write to.
        with closing(stream):
            for _, event in stream:
                _tell(event, folder, audience)
        waiting = [one for task in graph.get_state(config).tasks for one in task.interrupts]
        if not waiting:
            return
        given = Command(resume=audience.answer(waiting[0].value))


def _tell(event: Event, folder: RunFolder, audience: Audience) -> None:
    append_event(folder.events, event)
    audience.handle(event)


def _stopped(graph: Any, config: RunnableConfig, folder: RunFolder, why: str) -> Interrupted:
    """Write the report of what there is so far, if the reference was ever measured."""
    state = state_so_far(graph.get_state(config, subgraphs=True))
    if "facts" in state:
        stopped: RunState = {**state, "ended": why, "concluded": False}
        write_report(record_of(stopped, exchanges_in(folder)), folder.path)
    return Interrupted(folder, why)


def state_so_far(snapshot: StateSnapshot) -> RunState:
    """The run's state with what its unfinished attempts have found."""
    state = cast(RunState, dict(snapshot.values))
    for task in snapshot.tasks:
        if isinstance(task.state, StateSnapshot):
            found = cast(AttemptState, task.state.values)
            state["trials"] = add_trials(state.get("trials", {}), found.get("trials", {}))
            state["plans"] = append_plans(state.get("plans", ()), found.get("plans", ()))
            state["diagnoses"] = append_diagnoses(
                state.get("diagnoses", ()), found.get("diagnoses", ())
            )
            state["repairs"] = append_repairs(state.get("repairs", ()), found.get("repairs", ()))
    return state


def exchanges_in(folder: RunFolder) -> tuple[Exchange, ...]:
    """What the run's roles and models said so far; the file may be being written to.

    Raises:
        BadInput: it can't be read.
    """
    try:
        return tuple(legible_exchanges(folder.exchanges))
    except OSError as error:
        raise BadInput(str(folder.exchanges), f"cannot be read ({error.strerror}).") from error


@contextmanager
def checkpointer(folder: RunFolder) -> Iterator[LastCheckpoints]:
    """The run's checkpoints; reading them back makes no class but those that a run stores."""
    serializer = JsonPlusSerializer(
        allowed_msgpack_modules=[(cls.__module__, cls.__qualname__) for cls in STORED]
    )
    with closing(sqlite3.connect(folder.checkpoint, check_same_thread=False)) as connection:
        # The log outlives the process; only a machine's end can take the last nodes from it, and
        # what models answered in them is in the journal.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        yield LastCheckpoints(connection, serde=serializer)


@contextmanager
def _stopping_at_signals(benches: Workbenches) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end a run alike: after the nodes at work, in every thread."""
    if threading.current_thread() is not threading.main_thread():
        # Signals are the main thread's, which may have a use of its own for them.
        yield
        return

    def end() -> None:
        benches.stop()
        raise KeyboardInterrupt

    with heeding(endings(), end):
        yield
