"""An evaluation as tables and lines, for a terminal and in Markdown."""

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from eval.results import Results
from eval.rows import Broken, Finished, Row, Skipped
from eval.score import MATTERS, Summary
from graph.report.words import duration, percent, times

STYLES = {"faster": "green", "correct": "default", "compiled": "yellow", "failed": "red"}
NAMES_SHOWN = 12


def rows_table(results: Results) -> Table:
    """Every row, for a terminal."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("problem", overflow="fold")
    table.add_column("result")
    for heading in ("over eager", "over compile", "roofline", "SOL", "trials", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results.rows:
        table.add_row(escape(row.name), *_cells(row), duration(row.seconds))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    match row:
        case Skipped():
            return (f"[yellow]{in_brief(row)}[/]", "", "", "", "", "")
        case Broken():
            return (f"[red]{in_brief(row)}[/]", "", "", "", "", "")
        case Finished(document=document):
            return (
                f"[{STYLES[document.status]}]{in_brief(row)}[/]",
                _ratio(document.speedup.eager),
                _ratio(document.speedup.compile),
                _fraction(document.roofline_fraction),
                f"{row.sol:.2f}" if row.sol is not None else "–",
                str(document.trials),
            )


def in_brief(row: Row) -> str:
    """What became of a problem in a few words, without figures."""
    if isinstance(row, Skipped):
        return "skipped: too large"
    if isinstance(row, Broken):
        words = row.reason.replace("_", " ")
    else:
        aside = ", a canary" if row.is_canary else (", a constant" if row.is_constant else "")
        words = f"{row.document.status}{aside}"
    return f"{words}, scaled" if row.scaled else words


def in_words(row: Row) -> str:
    """One row as the end of a line of progress."""
    if isinstance(row, Finished):
        speedup = row.document.speedup.best_baseline
        told = in_brief(row)
        return told if speedup is None else f"{told} {times(speedup)}"
    last_words = row.error.splitlines()[-1][:160] if row.error else "no message"
    return f"{in_brief(row)} ({last_words})"


def parts_table(results: Results) -> Table:
    """The scores of the whole and of each part, level, family and kind, for a terminal."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("part")
    for heading in PART_HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, summary in {"all": results.summary, **results.breakdown.named}.items():
        table.add_row(escape(name), *part_cells(summary))
    return table


def markdown_line(cells: Iterable[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


PART_HEADINGS = ("problems", "correct", "faster", "slower", "geomean", "SOL", "median time")


def part_cells(summary: Summary) -> list[str]:
    """A part's scores as texts under `PART_HEADINGS`; faster and slower are by more than 5%."""
    seconds = summary.median_seconds
    return [
        str(summary.problems),
        percent(summary.correct),
        percent(summary.fast[f"{MATTERS:g}"]),
        percent(summary.slow),
        _ratio(summary.geomean),
        f"{summary.sol:.2f}" if summary.sol is not None else "–",
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
    sol = f"; SOL score {summary.sol:.2f}" if summary.sol is not None else ""
    problems = "1 problem" if summary.problems == 1 else f"{summary.problems} problems"
    lines = [
        f"{problems}: {percent(summary.correct)} correct, {fast}",
        f"{middle} over the fastest baseline{sol}",
    ]
    if summary.pass_at_1 is not None:
        lines.append(f"pass@1 {percent(summary.pass_at_1)}")
    if summary.seconds is not None:
        lines.append(f"{cost_text(summary)} a problem")
    if summary.failed:
        lines.append(f"failed, counted as 1.0: {_names(summary.failed)}")
    if summary.canaries:
        lines.append(f"canaries, where some wrong kernel would pass: {_names(summary.canaries)}")
    if summary.constants:
        lines.append(f"constants, whose output hangs on no input: {_names(summary.constants)}")
    if summary.set_aside:
        lines.append(f"these are kept out of the speed scores; {with_canaries(summary)} with them")
    if summary.scaled:
        lines.append(f"scaled, so not the problem as given: {_names(summary.scaled)}")
    if summary.skipped:
        lines.append(f"skipped, in no score: {_names(summary.skipped)}")
    return "\n".join(lines)


def with_canaries(summary: Summary) -> str:
    """The geomean in which nothing was set aside."""
    return f"geomean {_ratio(summary.geomean_of_all)}"


def cost_text(summary: Summary) -> str:
    """What a problem takes in the mean; tokens and money only where a model was asked."""
    parts = [duration(summary.seconds or 0.0)]
    if summary.tokens:
        parts += [f"{summary.tokens:,.0f} tokens", f"{summary.usd or 0.0:.3f} USD"]
    return ", ".join(parts)


def _names(names: tuple[str, ...]) -> str:
    more = len(names) - NAMES_SHOWN
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
