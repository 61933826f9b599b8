"""Results as a Markdown table: `python -m eval.compare A [B]`, alone or two side by side."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from eval.results import Results, load
from eval.score import Broken, Row
from eval.tables import PART_HEADINGS, part_cells
from graph.report.words import percent, times
from knowledge.errors import BadInput

BAD_INPUT = 2

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    first: Annotated[Path, typer.Argument(metavar="RESULTS", help="a results.json, or its folder")],
    second: Annotated[Path | None, typer.Argument(metavar="[RESULTS]", help="another one")] = None,
) -> None:
    """Print one or two evaluations as a Markdown table. Exit code 0; 2 for bad input."""
    try:
        table = markdown([load(path) for path in (first, second) if path is not None])
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    sys.stdout.write(table)


def markdown(evaluations: list[Results]) -> str:
    """A row a problem, a block of columns an evaluation, the scores of parts, and of the whole."""
    names = dict.fromkeys(name for results in evaluations for name in results.problems)
    heads = ["problem"]
    for results in evaluations:
        prefix = f"{settings(results)}: " if len(evaluations) > 1 else ""
        heads += [
            f"{prefix}over eager",
            "over torch.compile",
            "over the faster (95%)",
            "of the roofline",
        ]
    lines = [_line(heads), _line(["---", *["--:"] * (len(heads) - 1)])]
    for name in names:
        cells = [name]
        for results in evaluations:
            cells += _cells(next((row for row in results.rows if row.name == name), None))
        lines.append(_line(cells))
    notes = [f"{settings(results)}: {_scores(results)}" for results in evaluations]
    parts = _parts(evaluations)
    return "\n".join([*lines, "", *parts, *(f"- {note}" for note in notes)]) + "\n"


def _parts(evaluations: list[Results]) -> list[str]:
    """A row a part, family or kind, and an empty line; nothing where no problem has a label."""
    if not any(results.breakdown.named for results in evaluations):
        return []
    named = [{"all": results.summary, **results.breakdown.named} for results in evaluations]
    names = dict.fromkeys(name for parts in named for name in parts)
    heads = ["part"]
    for results in evaluations:
        prefix = f"{settings(results)}: " if len(evaluations) > 1 else ""
        heads += [f"{prefix}{PART_HEADINGS[0]}", *PART_HEADINGS[1:]]
    lines = [_line(heads), _line(["---", *["--:"] * (len(heads) - 1)])]
    for name in names:
        cells = [name]
        for parts in named:
            missing = ["not run", *[""] * (len(PART_HEADINGS) - 1)]
            cells += part_cells(parts[name]) if name in parts else missing
        lines.append(_line(cells))
    return [*lines, ""]


def settings(results: Results) -> str:
    """What sets an evaluation apart: its --set options, or that it had none."""
    return ", ".join(results.overrides) or "as the tasks say"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cells(row: Row | None) -> list[str]:
    if row is None:
        return ["not run", "", "", ""]
    if isinstance(row, Broken):
        return [row.reason.replace("_", " "), "", "", ""]
    speedup, fraction = row.document.speedup, row.document.roofline_fraction
    if row.document.status in ("failed", "compiled"):
        known = "compiled, not timed" if row.document.status == "compiled" else "no correct kernel"
        return [known, "", "", ""]
    best = times(speedup.best_baseline) if speedup.best_baseline is not None else "–"
    bounds = f" ({speedup.interval[0]:.2f}–{speedup.interval[1]:.2f})" if speedup.interval else ""
    # Only a confirmed win is set in bold.
    shown = f"**{best}**{bounds}" if row.document.status == "faster" else f"{best}{bounds}"
    ratios = [
        times(value) if value is not None else "–" for value in (speedup.eager, speedup.compile)
    ]
    return [*ratios, shown, percent(fraction) if fraction is not None else "–"]


def _scores(results: Results) -> str:
    summary = results.summary
    fast = ", ".join(f"fast_{p} {percent(share)}" for p, share in summary.fast.items())
    middle = f"geomean {times(summary.geomean)}, " if summary.geomean is not None else ""
    aside = (
        f"; kept out of the speed scores: {', '.join(summary.set_aside)}"
        if summary.set_aside
        else ""
    )
    failed = f"; failed, counted as 1.0: {', '.join(summary.failed)}" if summary.failed else ""
    device = results.device or "no device"
    return f"{percent(summary.correct)} correct, {middle}{fast}, on {device}{failed}{aside}"


if __name__ == "__main__":
    app()
