"""Data for those who train models: `python -m eval.export RUNS... --as sft|preference|rl`."""

import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from eval.card import card
from eval.examples import Census, Form, clean, examples, line_of
from eval.trajectories import LeftOut, Trajectory, run_folders, trajectories
from graph.folder import write_whole
from knowledge.errors import BadInput

BAD_INPUT = 2
FORMS: tuple[Form, ...] = ("sft", "preference", "rl")

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS...", help="folders of runs or evaluations, at any depth"),
    ],
    form: Annotated[str, typer.Option("--as", metavar="FORM", help=f"one of {', '.join(FORMS)}")],
    out: Annotated[Path, typer.Option("--out", help="the file; its card lies beside it, as .md")],
) -> None:
    """Write what runs tried as examples for training, one JSON object a line, and a data card.

    Exit code 0; 2 for bad input, also where nothing in the runs is fit for it.
    """
    try:
        chosen = next((one for one in FORMS if one == form), None)
        if chosen is None:
            raise BadInput(f"--as {form}", "is no form of data.", f"Known: {', '.join(FORMS)}.")
        census = export(run_folders(runs), chosen, out, tuple(sys.argv[1:]))
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    sys.stderr.write(
        f"{census.examples} of {census.trials} trials in {census.runs} runs: {out}, "
        f"{out.with_suffix('.md')}\n"
    )


def export(folders: Sequence[Path], form: Form, out: Path, command: tuple[str, ...]) -> Census:
    """Write the file and its card, whole or not at all, and say what was counted.

    Raises:
        BadInput: either is there already or can't be written, as where `out` is a folder, or
            nothing is fit for the form.
    """
    if out.is_dir():
        raise BadInput(f"--out {out}", "is a folder.", "Give the name of a file.")
    beside = out.with_suffix(".md")
    for path in (out, beside):
        if path.exists():
            raise BadInput(f"--out {path}", "is there already.", "Give another name.")
    if beside == out:
        raise BadInput(f"--out {out}", "is the card's own name.", "End it in .jsonl.")
    census = Census()
    draft = out.with_name(f".{out.name}.{os.getpid()}.draft")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            for example in examples(_all(folders), form, census):
                file.write(f"{line_of(example)}\n")
        if not census.examples:
            reasons = ", ".join([*census.dropped, *dict.fromkeys(r for _, r in census.left_out)])
            raise BadInput(
                f"--as {form}", f"finds nothing in {len(folders)} runs ({reasons or 'no trials'})."
            )
        written = datetime.now(UTC).isoformat(timespec="seconds")
        write_whole(beside, clean(card(form, census, out.name, command, written)))
        draft.replace(out)
    except OSError as error:
        raise BadInput(f"--out {out}", f"cannot be written ({error.strerror}).") from error
    finally:
        draft.unlink(missing_ok=True)
    return census


def _all(folders: Sequence[Path]) -> Iterator[Trajectory | LeftOut]:
    for folder in folders:
        yield from trajectories(folder)


if __name__ == "__main__":
    app()
