"""A whole suite: `python -m eval.run SUITE` runs each problem in its own process and keeps score.

A problem that crashes or hangs is a row of the results, never the end of the evaluation.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console

from eval.results import FILE, Results, load, save, versions
from eval.score import Broken, Document, Finished, Row
from eval.suite import Problem, choose, load_suite
from eval.tables import parts_table, rows_table, summary_text
from graph.report.words import duration, times
from knowledge.errors import BadInput
from tools.task import Task

DEFAULT_OUT = Path("runs/eval")
BAD_INPUT = 2
INTERRUPTED = 130
ENDED_WELL = (0, 3, 4)
# Baselines, the first torch.compile and the confirmation come on top of a task's own budget.
SLACK_S = 300.0
GRACE_S = 30.0
ERROR_LIMIT = 2000

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Ended(NamedTuple):
    """How a problem's process ended. `code` is None where it was stopped at its deadline."""

    code: int | None
    output: str
    log: str
    seconds: float


# Runs a command with a deadline in seconds, its standard error going to a file.
Execute = Callable[[list[str], float, Path], Ended]


def execute(command: list[str], deadline_s: float, log: Path) -> Ended:
    """Run a command in a session of its own; past the deadline it is asked to stop, then killed."""
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        code: int | None
        try:
            output, _ = process.communicate(timeout=deadline_s)
            code = process.returncode
        except subprocess.TimeoutExpired:
            output, code = _stop(process), None
        except KeyboardInterrupt:
            _stop(process)
            raise
    return Ended(
        code, output, log.read_text(encoding="utf-8", errors="replace"), time.monotonic() - began
    )


def _stop(process: subprocess.Popen[str]) -> str:
    """Ask a process to stop, kill what is left of its session, and return what it had printed."""
    process.send_signal(signal.SIGTERM)
    try:
        output, _ = process.communicate(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        _kill_group(process.pid)
        output, _ = process.communicate()
    _kill_group(process.pid)
    return output


def _kill_group(group: int) -> None:
    # The group lives on while any of its processes does, its leader or not.
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def evaluate(
    results: Results,
    problems: list[Problem],
    out: Path,
    run: Execute = execute,
    tell: Callable[[str], None] = print,
) -> Results:
    """Run the problems that `results` has no row for, in order, writing `results.json` after each.

    Args:
        results: the rows so far.
        problems: every one that is to have a row in the end.
        out: the folder of this evaluation.
        run: how a problem's command is run.
        tell: is given one line for every finished problem.
    """
    done = {row.name for row in results.rows}
    for folder in ("tasks", "logs", "runs"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    save(results, out)
    for number, (task, labels) in enumerate(problems, 1):
        if task.name in done:
            continue
        row = _run_one(task, out, run).model_copy(update={"labels": labels})
        results = results.with_row(row)
        save(results, out)
        tell(f"[{number}/{len(problems)}] {task.name}: {_in_words(row)}, {duration(row.seconds)}")
    return results


def _run_one(task: Task, out: Path, run: Execute) -> Row:
    file_name = re.sub(r"[^\w.-]+", "-", task.name)
    task_file = out / "tasks" / f"{file_name}.yaml"
    text = yaml.safe_dump(task.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    task_file.write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "graph.run",
        str(task_file),
        "--json",
        "--out",
        str(out / "runs"),
    ]
    deadline_s = task.budget.minutes * 60 + SLACK_S
    return row_from(task.name, run(command, deadline_s, out / "logs" / f"{file_name}.log"))


def row_from(name: str, ended: Ended) -> Row:
    """What a problem's process told, as a row; an answer that can't be read is a crash."""
    if ended.code is None:
        error = f"stopped after {duration(ended.seconds)}; last words: {_tail(ended.log)}"
        return Broken(name=name, seconds=ended.seconds, reason="timed_out", error=error)
    if ended.code == BAD_INPUT:
        return Broken(name=name, seconds=ended.seconds, reason="bad_input", error=_tail(ended.log))
    if ended.code in ENDED_WELL:
        try:
            document = Document.model_validate_json(ended.output)
        except ValidationError as error:
            complaint = f"exit {ended.code} without a readable document: {error.errors()[0]['msg']}"
            return Broken(name=name, seconds=ended.seconds, reason="crashed", error=complaint)
        return Finished(
            name=name, seconds=ended.seconds, document=document, cautions=_cautions(document)
        )
    error_text = f"exit {ended.code}: {_tail(ended.log)}"
    return Broken(name=name, seconds=ended.seconds, reason="crashed", error=error_text)


def _tail(log: str) -> str:
    return log.strip()[-ERROR_LIMIT:]


def _cautions(document: Document) -> tuple[str, ...]:
    """What the judge cautioned about, from the run's own report; none where it left no report."""
    try:
        report = json.loads((Path(document.run_dir) / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(report["facts"]["cautions"])


def _in_words(row: Row) -> str:
    if isinstance(row, Broken):
        last_words = row.error.splitlines()[-1][:120] if row.error else "no message"
        return f"{row.reason.replace('_', ' ')} ({last_words})"
    speedup = row.document.speedup.best_baseline
    return row.document.status if speedup is None else f"{row.document.status} {times(speedup)}"


@app.command()
def main(  # noqa: PLR0913 - a command's options are its parameters
    suite: Annotated[
        Path,
        typer.Argument(metavar="SUITE", help="a YAML list of tasks, or a folder of references"),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="replace a key of every task"),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="NAME[,NAME]", help="these problems; conv* is a pattern"),
    ] = None,
    holdout: Annotated[
        bool | None,
        typer.Option("--holdout/--no-holdout", help="one of the two parts; both by default"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="run the first N problems only")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="folder for results, logs and runs")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the evaluation in --out")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="use, and add to, what earlier runs have learned")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON document on standard output")
    ] = False,
) -> None:
    """Run a suite of problems and score it.

    Exit code 0 when every problem has its row; 2 for bad input.
    """
    console = Console(stderr=True, soft_wrap=True)

    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    try:
        problems = load_suite(suite, tuple(overrides or ()))
        problems = choose(problems, only, holdout)[:limit]
        results, folder = _open_results(suite, problems, tuple(overrides or ()), out, resume)
        if not memory:
            # A score must not depend on what was run before; the problems' processes inherit this.
            os.environ["KERNELWRIGHT_LIBRARY"] = str((folder / "library").resolve())
        results = evaluate(results, problems, folder, tell=tell)
    except BadInput as error:
        tell(str(error))
        raise typer.Exit(BAD_INPUT) from error
    except KeyboardInterrupt as stop:
        tell("interrupted; go on with the same command and --out DIR --resume")
        raise typer.Exit(INTERRUPTED) from stop
    Console(stderr=True).print(rows_table(results))
    if results.breakdown.named:
        Console(stderr=True).print(parts_table(results))
    tell(f"{summary_text(results.summary)}\nresults: {folder / FILE}")
    if as_json:
        sys.stdout.write(json.dumps(results.document(), indent=2) + "\n")


def _open_results(
    suite: Path, problems: list[Problem], overrides: tuple[str, ...], out: Path | None, resume: bool
) -> tuple[Results, Path]:
    names = tuple(problem.task.name for problem in problems)
    if resume:
        if out is None:
            raise BadInput(
                "--resume", "needs --out.", "Give the folder of the evaluation to go on with."
            )
        earlier = load(out)
        if (earlier.overrides, earlier.problems) != (overrides, names):
            raise BadInput(
                f"--resume: {out}",
                "was made with other problems or settings.",
                "Repeat its command.",
            )
        return earlier, out
    started = datetime.now(UTC)
    folder = out or DEFAULT_OUT / f"{started:%Y%m%d-%H%M%S}-{suite.resolve().stem}"
    if (folder / FILE).exists():
        raise BadInput(
            f"--out {folder}", "already holds results.", "Add --resume, or give another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {folder}", f"cannot be made ({error.strerror}).") from error
    began = started.isoformat(timespec="seconds")
    fresh = Results(
        suite=str(suite), started=began, versions=versions(), overrides=overrides, problems=names
    )
    return fresh, folder


if __name__ == "__main__":
    app()
