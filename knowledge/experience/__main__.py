"""`python -m knowledge.experience`: look at what is remembered, take it elsewhere, or forget it."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from knowledge.errors import BadInput
from knowledge.experience.lesson import Lesson
from knowledge.experience.tried import RIGHT, Tried, repairs, tallies
from knowledge.store import Library

BAD_INPUT = 2
# Beside a terminal's width, which rich fits the other columns to.
SHOWN = 200

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

RunId = Annotated[str, typer.Option("--run", metavar="RUN_ID", help="one run's")]
Op = Annotated[str, typer.Option("--op", help="of one op: its signature or its fingerprint")]
DeviceName = Annotated[str, typer.Option("--device", help="on one device")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on standard output")]


@app.callback()
def main() -> None:
    """The judged trials of earlier runs, and what they amount to."""


@app.command("list")
def show(run_id: RunId = "", op: Op = "", device: DeviceName = "", as_json: AsJson = False) -> None:
    """Print trials, oldest first, then the tally of each recipe and of each repair."""
    with _library() as library:
        found = library.memory.entries(run_id=run_id, op=op, device=device)
    if as_json:
        document = {
            "trials": [one.model_dump(mode="json") for one in found],
            "recipes": [each.model_dump(mode="json") for each in tallies(found).values()],
            "repairs": [each.model_dump(mode="json") for each in repairs(found)],
        }
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    _print(found)


@app.command("export")
def export_to(
    file: Annotated[Path, typer.Argument(help="is written; one JSON object a line")],
    run_id: RunId = "",
    op: Op = "",
    device: DeviceName = "",
) -> None:
    """Write trials to a file that `import` reads, on this machine or another."""
    with _library() as library:
        found = library.memory.entries(run_id=run_id, op=op, device=device)
        text = "".join(one.model_dump_json() + "\n" for one in found)
        part = file.with_name(f"{file.name}.part")
        try:
            if file.exists() and not file.is_file():
                file.write_text(text, encoding="utf-8")
            else:
                part.write_text(text, encoding="utf-8")
                part.replace(file)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise BadInput(str(file), f"cannot be written ({error.strerror}).") from error
    sys.stdout.write(f"{_trials(len(found))} written to {file}\n")


@app.command("import")
def import_from(
    file: Annotated[Path, typer.Argument(help="as `export` writes it")],
) -> None:
    """Add the trials of a file; those that are known already are passed over."""
    with _library() as library:
        given = read_trials(file)
        known = {(one.run_id, one.trial) for one in library.memory.entries()}
        fresh = [one for one in given if (one.run_id, one.trial) not in known]
        # Lessons first: were it killed in between, the same command would find the trials again.
        for lesson in filter(None, (one.lesson for one in fresh)):
            library.remember(lesson)
        new = library.memory.add(given)
    sys.stdout.write(f"{_trials(len(new))} new of {len(given)} in {file}\n")


@app.command()
def drop(
    run_id: RunId = "",
    op: Op = "",
    device: DeviceName = "",
    everything: Annotated[bool, typer.Option("--all", help="all that is remembered")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="with --all: it is meant")] = False,
) -> None:
    """Forget trials, and what they taught, for good; several options narrow the choice."""

    def unwanted(lesson: Lesson) -> bool:
        return (
            run_id in ("", lesson.run_id)
            and device in ("", lesson.device)
            and op in ("", lesson.signature, lesson.fingerprint)
        )

    with _library() as library:
        chosen = bool(run_id or op or device)
        if chosen == everything:
            raise BadInput(
                "drop", "needs to know what.", "Give --run, --op or --device, or --all --yes."
            )
        if everything and not yes:
            raise BadInput("drop --all", "forgets everything.", "Add --yes if that is meant.")
        # Lessons first: were it killed in between, the same command would find the trials again.
        taught = library.forget(unwanted)
        gone = library.memory.drop(run_id=run_id, op=op, device=device)
    sys.stdout.write(f"{_trials(len(gone))} and {_counted(taught, 'lesson')} dropped\n")


def read_trials(file: Path) -> list[Tried]:
    """The trials of an exported file; every line is looked at before any is used.

    Raises:
        BadInput: no such file, or a line that is not a trial.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(str(file), f"cannot be read ({error}).") from error
    trials: list[Tried] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            trials.append(Tried.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(str(part) for part in first["loc"])
            told = f"{at}: {first['msg']}" if at else first["msg"]
            raise BadInput(
                f"{file}: line {number}",
                f"is not a trial ({' '.join(told.split())}).",
                "Nothing was imported.",
            ) from error
    return trials


@contextmanager
def _library() -> Iterator[Library]:
    """The user's library; what cannot be done ends as one line and exit code 2."""
    try:
        library = Library.open()
        yield library
        for sentence in library.memory.complaints():
            sys.stderr.write(f"{sentence}\n")
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error


def _print(found: Sequence[Tried]) -> None:
    screen = Console(highlight=False, markup=False)
    if not found:
        screen.print("Nothing is remembered of that.")
        return
    if len(found) > SHOWN:
        screen.print(f"The last {SHOWN} of {len(found)} trials; --json prints all.")
    rows = _table("run", "trial", "op", "device", "recipe", "verdict", "speedup", "bottleneck")
    for one in found[-SHOWN:]:
        verdict = "won" if one.won else one.verdict
        rows.add_row(
            one.run_id, str(one.trial), one.signature, one.device, _recipe(one.recipe),
            verdict + (f" (mends {one.mended})" if one.mended and one.verdict == RIGHT else ""),
            _speedup(one), one.bottleneck,
        )  # fmt: skip
    screen.print(rows)
    recipes = _table("recipe", "record")
    for tally in tallies(found).values():
        recipes.add_row(_recipe(tally.recipe), tally.words())
    screen.print("", recipes)
    mends = _table("after", "repair", "tried", "right")
    for mend in repairs(found):
        mends.add_row(mend.failure, mend.repair, str(mend.tries), str(mend.worked))
    if mends.row_count:
        screen.print("", mends)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _recipe(patterns: tuple[str, ...]) -> str:
    return " + ".join(patterns) or "the op itself"


def _speedup(one: Tried) -> str:
    if one.speedup is None:
        return ""
    interval = f" ({one.low:.2f} to {one.high:.2f})" if one.low and one.high else ""
    return f"{one.speedup:.2f}x{interval}"


def _trials(count: int) -> str:
    return _counted(count, "trial")


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


if __name__ == "__main__":
    app()
