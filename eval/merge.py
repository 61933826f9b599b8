"""The parts of a suite that ran apart, as one: `python -m eval.merge RESULTS... --out DIR`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from eval.page import write_page
from eval.results import FILE, Results, load, save
from knowledge.errors import BadInput

BAD_INPUT = 2

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    parts: Annotated[
        list[Path], typer.Argument(metavar="RESULTS...", help="of --shard 1/n to n/n")
    ],
    out: Annotated[Path, typer.Option("--out", help="folder for the whole")],
) -> None:
    """Merge the results of a suite's shards. Exit code 0; 2 for bad input."""
    try:
        _write(merge([load(path) for path in parts]), out)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error


def _write(whole: Results, out: Path) -> None:
    """Write the results and their page.

    Raises:
        BadInput: there are results already, or the folder can't be written.
    """
    try:
        if (out / FILE).exists():
            raise BadInput(f"--out {out}", "already holds results.", "Give another folder.")
        out.mkdir(parents=True, exist_ok=True)
        save(whole, out)
        write_page(whole, out)
    except OSError as error:
        told = f"cannot be written ({error.strerror})."
        raise BadInput(f"--out {out}", told, "Give another folder.") from error


def merge(parts: list[Results]) -> Results:
    """One result of several, whose problems differ and whose settings do not.

    Raises:
        BadInput: other settings, another judge or device, or a problem that two of them have.
    """
    first = parts[0]
    for part in parts[1:]:
        for what, mine, others in (
            ("settings", first.overrides, part.overrides),
            ("candidates", first.candidates, part.candidates),
            ("options", first.rules, part.rules),
            ("judge", first.provenance.judge, part.provenance.judge),
        ):
            if mine != others:
                told = f"has other {what} than {first.shard or 'the first'}."
                raise BadInput(part.shard or part.started, told, "Parts of one suite are alike.")
        if first.device and part.device and first.device != part.device:
            told = f"is of {part.device}, and the first of {first.device}."
            raise BadInput(part.shard or part.started, told, "Compare them instead.")
    names = [name for part in parts for name in part.problems]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(twice[0], "is in two of the results.", "Give each part once.")
    return first.model_copy(
        update={
            "problems": tuple(names),
            "rows": tuple(row for part in parts for row in part.rows),
            "shard": _part_of(parts),
        }
    )


def _part_of(parts: list[Results]) -> str:
    """Which shards these are; nothing where they are all."""
    shards = {part.shard for part in parts}
    count = parts[0].shard.partition("/")[2]
    whole = {f"{number}/{count}" for number in range(1, int(count) + 1)} if count else shards
    return "" if shards == whole else ", ".join(sorted(shards))


if __name__ == "__main__":
    app()
