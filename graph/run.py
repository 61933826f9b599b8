"""The main job: `python -m graph.run task.yaml` refines one op and says what was found."""

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from agents.llm.models import check_models
from graph.build import RUNS
from graph.drive import Interrupted, work
from graph.folder import RunFolder
from graph.record import RunRecord
from graph.screen import final_screen
from graph.state import RunInput
from graph.terminal import check_terminal
from knowledge.errors import BadInput
from tools.profile.present import ensure_described
from tools.task import Task, device_of, language_of, load_task

# What was compiled and not timed is not known to be faster.
EXIT = {"faster": 0, "correct": 3, "compiled": 3, "failed": 4}
BAD_INPUT = 2
INTERRUPTED = 130

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0913, an option is an argument here
    task_file: Annotated[
        Path | None, typer.Argument(help="the task, as YAML", metavar="TASK.yaml")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="replace a key of the task"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="folder in which the run's own folder is made (default: runs)"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN_DIR", help="go on with an interrupted run"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON document on standard output")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
    approve: Annotated[
        bool, typer.Option("--approve", help="ask before each plan is carried out")
    ] = False,
) -> None:
    """Refine a PyTorch op into a fast kernel, and confirm it.

    Exit code 0: a confirmed kernel faster than every baseline; 3: a correct one, none faster; 4:
    none correct; 2: bad input; 130: interrupted, resumable.
    """
    try:
        folder, task, entry = _open_run(task_file, tuple(overrides or ()), out, resume, approve)
        record = work(folder, task, entry, quiet=quiet)
    except BadInput as error:
        say(str(error))
        raise typer.Exit(BAD_INPUT) from error
    except Interrupted as stop:
        say(str(stop))
        raise typer.Exit(INTERRUPTED) from stop
    hand_over(record, as_json=as_json)


def _open_run(
    task_file: Path | None,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: Path | None,
    approve: bool,
) -> tuple[RunFolder, Task, RunInput | None]:
    """The run's folder, its task, and what starts it: None where it goes on."""
    if resume is not None:
        if task_file or overrides or out or approve:
            raise BadInput(
                "--resume",
                "goes alone: the run goes on as it was begun.",
                "Leave out the task, --set, --out and --approve.",
            )
        return *RunFolder.reopen(resume), None
    if approve:
        check_terminal()
    if task_file is None:
        raise BadInput(
            "command line",
            "no task was given.",
            "For example: python -m graph.run examples/softmax.yaml",
        )
    task = load_task(task_file, overrides)
    if told := ensure_described(task.target):
        raise BadInput(f"{task_file}: target", f"{told}.")
    language_of(task, device_of(task, f"{task_file}: target"), str(task_file))
    check_models(task, str(task_file))
    folder = RunFolder.create(out or RUNS, task)
    return folder, task, RunInput(task=task, run_dir=str(folder.path), approve=approve)


def hand_over(record: RunRecord, *, as_json: bool) -> NoReturn:
    """Show a finished run, and leave with its exit code."""
    if as_json:
        sys.stdout.write(json.dumps(record.document(), indent=2) + "\n")
    else:
        Console().print(final_screen(record))
    raise typer.Exit(EXIT[record.status])


def say(text: str) -> None:
    """Tell the person at the terminal, apart from what programs read."""
    Console(stderr=True, soft_wrap=True).print(text, markup=False, highlight=False)


if __name__ == "__main__":
    app()
