"""The main job: `python -m graph.run task.yaml` refines one op and says what was found."""

import json
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from rich.console import Console

from graph.build import RUNS, build_graph
from graph.events import append_event
from graph.folder import RunFolder
from graph.record import RunRecord
from graph.screen import Screen, final_screen
from graph.state import STORED, RunInput, RunState
from graph.summary import record_of
from graph.workbench import Workbenches
from knowledge.errors import BadInput
from tools.task import Task, device_of, language_of, load_task

# What was compiled and not timed is not known to be faster.
EXIT = {"faster": 0, "correct": 3, "compiled": 3, "failed": 4}
BAD_INPUT = 2
INTERRUPTED = 130

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Interrupted(Exception):
    """The user stopped the run; what was finished is in the checkpoint."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        super().__init__(str(folder.path))


@app.command()
def main(
    task_file: Annotated[
        Path | None, typer.Argument(help="the task, as YAML", metavar="TASK.yaml")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="replace a key of the task"),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="folder in which the run's own folder is made")
    ] = RUNS,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN_DIR", help="go on with an interrupted run"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON document on standard output")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
) -> None:
    """Refine a PyTorch op into a fast kernel, and confirm it.

    Exit code 0: a confirmed kernel faster than every baseline; 3: a correct one, none faster; 4:
    none correct; 2: bad input; 130: interrupted, resumable.
    """
    try:
        folder, task, fresh = _open_run(task_file, tuple(overrides or ()), out, resume)
        record = _work(folder, task, fresh=fresh, quiet=quiet)
    except BadInput as error:
        _say(str(error))
        raise typer.Exit(BAD_INPUT) from error
    except Interrupted as stop:
        _say(f"interrupted; go on with: python -m graph.run --resume {stop.folder.path}")
        raise typer.Exit(INTERRUPTED) from stop
    if as_json:
        sys.stdout.write(json.dumps(record.document(), indent=2) + "\n")
    else:
        Console().print(final_screen(record))
    raise typer.Exit(EXIT[record.status])


def _open_run(
    task_file: Path | None, overrides: tuple[str, ...], out: Path, resume: Path | None
) -> tuple[RunFolder, Task, bool]:
    if resume is not None:
        if task_file is not None or overrides:
            raise BadInput("--resume", "goes alone: the run's own task.yaml says what to do.")
        folder, task = RunFolder.reopen(resume)
        return folder, task, False
    if task_file is None:
        raise BadInput(
            "command line",
            "no task was given.",
            "For example: python -m graph.run examples/softmax.yaml",
        )
    task = load_task(task_file, overrides)
    language_of(task, device_of(task, f"{task_file}: target"), str(task_file))
    return RunFolder.create(out, task), task, True


def _work(folder: RunFolder, task: Task, *, fresh: bool, quiet: bool) -> RunRecord:
    """Run the graph to its end, or from where it stopped, showing and keeping every event."""
    benches = Workbenches()
    config: RunnableConfig = {
        "configurable": {"thread_id": folder.path.name},
        "recursion_limit": 1000,
    }
    try:
        with (
            checkpointer(folder) as saver,
            Screen(task, quiet) as screen,
            _terminate_like_interrupt(),
        ):
            graph = build_graph(benches, checkpointer=saver)
            entry = (
                RunInput(task=task, run_dir=str(folder.path))
                if fresh or not saver.get_tuple(config)
                else None
            )
            for event in _events(graph, entry, config):
                append_event(folder.events, event)
                screen.handle(event)
            state: RunState = graph.get_state(config).values  # type: ignore[assignment]
        return record_of(state)
    except BadInput:
        if fresh:
            benches.close_all()
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    except KeyboardInterrupt as stop:
        raise Interrupted(folder) from stop
    finally:
        benches.close_all()
        shutil.rmtree(folder.scratch, ignore_errors=True)


def _events(graph: Any, entry: RunInput | None, config: RunnableConfig) -> Iterator[Any]:
    for _, event in graph.stream(entry, config, stream_mode="custom", subgraphs=True):
        yield event


@contextmanager
def checkpointer(folder: RunFolder) -> Iterator[SqliteSaver]:
    """The run's checkpoints; reading them back makes no class but those that a run stores."""
    serializer = JsonPlusSerializer(
        allowed_msgpack_modules=[(cls.__module__, cls.__qualname__) for cls in STORED]
    )
    with closing(sqlite3.connect(folder.checkpoint, check_same_thread=False)) as connection:
        yield SqliteSaver(connection, serde=serializer)


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does, with its processes stopped and the way back printed."""

    def raise_interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, raise_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _say(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(text, markup=False, highlight=False)


if __name__ == "__main__":
    app()
