"""Lists runs: `python -m graph.runs [FOLDER]...`, and shows them with `--serve`.

It reads and changes nothing. A run that is at work, stopped or broken is a row like any other.
"""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from graph.report.index import TONES, cost, speed, took
from graph.report.listing import STATES, RunRow, State, Wanted, age, list_runs
from graph.report.serve import Listing, make_server
from graph.report.words import Tone
from knowledge.errors import BadInput

BAD_INPUT = 2
PORT = 8765
RUNS = Path("runs")
NARROWEST = 100
STYLES: dict[Tone, str] = {"good": "green", "plain": "default", "bad": "red", "warn": "yellow"}
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0913, an option is an argument here
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="folders of runs, or runs (default: runs)", metavar="[FOLDER]..."),
    ] = None,
    status: Annotated[
        list[str] | None, typer.Option("--status", help=f"one of {', '.join(STATES)}; may repeat")
    ] = None,
    op: Annotated[str, typer.Option("--op", metavar="TEXT", help="part of an op's name")] = "",
    device: Annotated[
        str, typer.Option("--device", metavar="TEXT", help="part of a device's name")
    ] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="WHEN", help="30m, 12h, 7d, 2w, or a date")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="show so many at most")] = 1_000,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON document on standard output")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="show them in a browser, on this machine alone")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="for --serve; 0: any that is free")
    ] = PORT,
) -> None:
    """List runs, the latest first. Exit code 0; 2: bad input."""
    try:
        wanted = Wanted(_states(tuple(status or ())), op, device, _moment(since))
        places = tuple(folders or (RUNS,))
        rows = list_runs(places, wanted)[:limit]
        if serve:
            _serve(partial(list_runs, places, wanted), port, limit)
            return
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    if as_json:
        document = {"runs": [row.model_dump() for row in rows]}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return
    if not rows:
        sys.stderr.write("No run fits.\n")
        return
    console = Console()
    # In a pipe every line is whole, whatever the width of a terminal that is not there.
    console = console if console.is_terminal else Console(width=200)
    console.print(table_of(rows, narrow=console.width < NARROWEST))
    for row in rows:
        if row.state == "broken":
            sys.stderr.write(f"{row.run_id}: {row.note}\n")


def _states(given: tuple[str, ...]) -> tuple[State, ...]:
    names = [name for text in given for name in text.replace(",", " ").split()]
    known = {str(state): state for state in STATES}
    if strange := [name for name in names if name not in known]:
        raise BadInput(f"--status {strange[0]}", "is unknown.", f"Known: {', '.join(STATES)}.")
    return tuple(known[name] for name in names)


def _moment(text: str) -> datetime | None:
    """From an age such as `7d`, or a date, to a moment."""
    if not text:
        return None
    if found := re.fullmatch(r"(\d{1,6})([mhdw])", text):
        try:
            return datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})
        except OverflowError:
            raise BadInput(
                f"--since {text}", "is before the calendar begins.", "For example: 7d"
            ) from None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"--since {text}", "is neither an age nor a date.", "For example: 7d, or 2026-11-20"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def table_of(rows: list[RunRow], *, narrow: bool = False) -> Table:
    """The rows as a table; a narrow one leaves out device and time."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("run", overflow="fold", no_wrap=not narrow)
    table.add_column("op", overflow="fold")
    if not narrow:
        table.add_column("device", overflow="ellipsis", max_width=24)
    table.add_column("status")
    table.add_column("speedup", justify="right")
    table.add_column("95% interval", justify="right")
    table.add_column("trials", justify="right")
    if not narrow:
        table.add_column("time", justify="right")
    table.add_column("cost", justify="right")
    table.add_column("age", justify="right")
    for row in rows:
        speedup, within = speed(row)
        # What stands in a folder's files may look like markup of rich.
        cells = [
            Text(row.run_id),
            Text(row.op),
            *([] if narrow else [Text(row.device)]),
            Text(row.state, style=STYLES[TONES[row.state]]),
            Text(speedup),
            Text(within),
            Text(str(row.trials)),
            *([] if narrow else [Text(took(row))]),
            Text(cost(row)),
            Text(age(row)),
        ]
        table.add_row(*cells)
    return table


def _serve(listing: Listing, port: int, limit: int) -> None:
    """Answer until Ctrl-C.

    Raises:
        BadInput: the port is taken.
    """
    try:
        server = make_server(listing, port, limit)
    except OSError as error:
        raise BadInput(
            f"--port {port}", f"cannot be had ({error.strerror}).", "Give another, or 0."
        ) from error
    with server:
        address = f"http://localhost:{server.server_address[1]}/"
        sys.stderr.write(f"Runs are shown at {address} until Ctrl-C.\n")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stderr.write("\n")


if __name__ == "__main__":
    app()
