"""`python -m knowledge.index [PATH]...`: add documents to the library, or refresh its own pages."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from knowledge.errors import BadInput
from knowledge.store import IndexReport, Library

app = typer.Typer(add_completion=False)
SHOWN_UNREADABLE = 20
# A file that was named could not be read.
UNREAD = 1


@app.command()
def index(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Your own Markdown, text, HTML, PDF or source files, or folders of them.",
            show_default=False,
        ),
    ] = None,
    place: Annotated[
        str | None,
        typer.Option("--library", metavar="FOLDER|URL", help="Not $KERNELWRIGHT_LIBRARY's."),
    ] = None,
    drop: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Drop documents: a file, a folder or a host, as searches name it.",
        ),
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Build all of it from nothing, for everybody.")
    ] = False,
) -> None:
    """Add your documents to the library; without a path, index the project's own pages.

    Exit code 0, 1 where a file that was named can't be read, 2 on bad input.
    """
    screen = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[name]}"),
    )
    try:
        library = Library.open(place)
        if drop is not None and (paths or anew):
            raise BadInput("--drop", "stands alone.", "Index and drop by two commands.")
        if drop is not None:
            sys.stdout.write(f"{library.drop(drop)} dropped\nlibrary: {library.place}\n")
            return
        with Progress(
            *columns, console=screen, transient=True, disable=not screen.is_terminal
        ) as bar:
            reading = bar.add_task("reading", total=None, name="")
            report = library.index(
                paths or [],
                lambda done, of, name: bar.update(reading, completed=done, total=of, name=name),
                anew=anew,
            )
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from error
    for bad in report.unreadable[:SHOWN_UNREADABLE]:
        sys.stderr.write(f"not read: {bad.path}: {bad.reason}\n")
    if (hidden := len(report.unreadable) - SHOWN_UNREADABLE) > 0:
        sys.stderr.write(f"not read: {hidden} more\n")
    sys.stdout.write(f"{summary(report)}\nlibrary: {library.place}\n")
    named = {str(path.expanduser().resolve()) for path in paths or []}
    if named & {bad.path for bad in report.unreadable}:
        raise typer.Exit(UNREAD)


def summary(report: IndexReport) -> str:
    """The run in one sentence."""
    parts = [f"{report.read} read", f"{report.unchanged} unchanged"]
    if report.dropped:
        parts.append(f"{report.dropped} dropped")
    if report.unreadable:
        parts.append(f"{len(report.unreadable)} could not be read")
    why = f" (all anew: {report.rebuilt})" if report.rebuilt else ""
    return f"{', '.join(parts)}{why}; {report.passages} passages, {report.seconds:.2f} s"


if __name__ == "__main__":
    app()
