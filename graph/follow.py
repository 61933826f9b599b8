"""`python -m graph.follow RUN_DIR`: watch a run that another process works on, as if it were here.

A server's, another terminal's, an assistant's. It reads the run's events and nothing else, and ends
with the run.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from graph.drive import way_on
from graph.events import Concluded, Event, parse_event
from graph.folder import RunFolder
from graph.report.load import load_record
from graph.run import BAD_INPUT, INTERRUPTED, hand_over, say
from graph.screen import Screen
from knowledge.errors import BadInput

PAUSE_SECONDS = 0.2

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    run_dir: Annotated[Path, typer.Argument(help="the folder of a run", metavar="RUN_DIR")],
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON document on standard output at the end")
    ] = False,
) -> None:
    """Watch a run until it ends; exit codes are those of graph.run, and 130 where it stopped."""
    try:
        folder, task = RunFolder.reopen(run_dir, "run")
        concluded = False
        with Screen(task, quiet=False) as screen:
            for event in following(folder):
                screen.handle(event)
                concluded = isinstance(event, Concluded)
        record = load_record(folder.path).record if concluded else None
    except BadInput as error:
        say(str(error))
        raise typer.Exit(BAD_INPUT) from error
    except KeyboardInterrupt as stop:
        raise typer.Exit(INTERRUPTED) from stop
    if record is None:
        say(f"nobody works on it; {way_on(folder)}")
        raise typer.Exit(INTERRUPTED)
    hand_over(record, as_json=as_json)


def following(folder: RunFolder) -> Iterator[Event]:
    """A run's events, those so far and those to come, until it ends or nobody works on it."""
    position, rest = 0, b""
    while True:
        # Asked before the last look: what a process wrote before it let go is then seen.
        idle = not folder.is_held()
        if folder.events.exists():
            with folder.events.open("rb") as log:
                log.seek(position)
                data = log.read()
            position += len(data)
            *lines, rest = (rest + data).split(b"\n")
            yield from _legible(lines)
        if idle:
            return
        time.sleep(PAUSE_SECONDS)


def _legible(lines: list[bytes]) -> list[Event]:
    """The events in these lines; another release's, or a torn one, is passed over."""
    found: list[Event] = []
    for line in filter(None, lines):
        with suppress(ValidationError):
            found.append(parse_event(line))
    return found


if __name__ == "__main__":
    app()
