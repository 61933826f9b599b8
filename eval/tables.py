"""An evaluation as tables and lines for a terminal."""

from rich.table import Table

from eval.results import Results
from eval.score import MATTERS, Broken, Summary
from graph.report.words import duration, percent, times


def rows_table(results: Results) -> Table:
    """Every row, for a terminal."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("problem", overflow="fold")
    table.add_column("result")
    for heading in ("over eager", "over compile", "roofline", "trials", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    styles = {"faster": "green", "correct": "default", "compiled": "yellow", "failed": "red"}
    for row in results.rows:
        if isinstance(row, Broken):
            table.add_row(
                row.name,
                f"[red]{row.reason.replace('_', ' ')}[/]",
                "",
                "",
                "",
                "",
                duration(row.seconds),
            )
            continue
        document = row.document
        table.add_row(
            row.name,
            f"[{styles[document.status]}]{document.status}[/]",
            _ratio(document.speedup.eager),
            _ratio(document.speedup.compile),
            _fraction(document.roofline_fraction),
            str(document.trials),
            duration(row.seconds),
        )
    return table


def parts_table(results: Results) -> Table:
    """The scores of the whole and of each part, family and kind, for a terminal."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("part")
    for heading in PART_HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, summary in {"all": results.summary, **results.breakdown.named}.items():
        table.add_row(name, *part_cells(summary))
    return table


PART_HEADINGS = ("problems", "correct", "faster", "slower", "geomean", "median time")


def part_cells(summary: Summary) -> list[str]:
    """A part's scores as texts under `PART_HEADINGS`; faster and slower are by more than 5%."""
    seconds = summary.median_seconds
    return [
        str(summary.problems),
        percent(summary.correct),
        percent(summary.fast[f"{MATTERS:g}"]),
        percent(summary.slow),
        _ratio(summary.geomean),
        duration(seconds) if seconds is not None else "–",
    ]


def _ratio(value: float | None) -> str:
    return times(value) if value is not None else "–"


def _fraction(value: float | None) -> str:
    return percent(value) if value is not None else "–"


def summary_text(summary: Summary) -> str:
    """The scores in a few plain lines."""
    fast = ", ".join(f"fast_{p} {percent(share)}" for p, share in summary.fast.items())
    middle = f"geomean {_ratio(summary.geomean)}, median {_ratio(summary.median)}"
    lines = [
        f"{summary.problems} problems: {percent(summary.correct)} correct, {fast}",
        f"{middle} over the fastest baseline",
    ]
    if summary.failed:
        lines.append(f"failed, counted as 1.0: {', '.join(summary.failed)}")
    if summary.set_aside:
        lines.append(f"cautioned, kept out of the speed scores: {', '.join(summary.set_aside)}")
    return "\n".join(lines)
