"""An evaluation as one page: `results.html`, one file that needs no network and no other file."""

import math
import os
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from eval.results import Results
from eval.rows import Broken, Finished, Row, Skipped
from eval.score import MATTERS, Summary, is_correct, is_set_aside
from eval.tables import PART_HEADINGS, cost_text, in_brief, part_cells
from graph.folder import write_whole
from graph.report.words import baseline_name, duration, percent, times
from tools.secrets import redact

FILE = "results.html"
HERE = Path(__file__).parent / "pages"
WIDTH, HEIGHT, MARGIN_LEFT, MARGIN = 1000, 240, 44, 14
ERROR_LIMIT = 600


class Cell(NamedTuple):
    """What a table shows, and the number by which its column is sorted; "" goes last."""

    text: str
    value: float | str = ""
    number: bool = True
    tone: str = ""
    link: str = ""


class Columns(NamedTuple):
    """Which columns the problems' table has, beside those that it always has."""

    level: bool
    family: bool
    baselines: tuple[str, ...]
    paid: bool


class Card(NamedTuple):
    """A figure in large type."""

    label: str
    value: str
    detail: str


class Dot(NamedTuple):
    """A problem in the plot: its place, the interval's ends, and what is said of it."""

    x: float
    y: float
    low: float
    high: float
    tone: str
    title: str


class Line(NamedTuple):
    """A line of the plot's grid."""

    y: float
    text: str
    strong: bool


def write_page(results: Results, folder: Path) -> None:
    """Write `results.html`; a reader sees the old one or the whole new one."""
    write_whole(folder / FILE, redact(render(results, folder)))


def render(results: Results, folder: Path) -> str:
    """The page's text.

    Args:
        results: what is shown.
        folder: where the page will lie; reports of runs within it are linked.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = (HERE / "sort.js").read_text(encoding="utf-8")
    dots, grid = plot(results.rows)
    shown = columns(results.rows)
    return environment.get_template("page.html.j2").render(
        results=results,
        summary=results.summary,
        title=title(results),
        lead=lead(results),
        cards=cards(results.summary),
        fast=[(f"fast_{p}", share, percent(share)) for p, share in results.summary.fast.items()],
        dots=dots,
        grid=grid,
        size=(WIDTH, HEIGHT, MARGIN_LEFT),
        headings=headings(shown),
        rows=[cells(row, shown, folder) for row in results.rows],
        part_headings=PART_HEADINGS,
        parts=[
            (name, part_cells(part))
            for name, part in {"all": results.summary, **results.breakdown.named}.items()
        ],
        problems_with=[
            (row.name, in_brief(row), told) for row in results.rows if (told := trouble(row))
        ],
        with_canaries=times(results.summary.geomean_of_all or 1.0),
        style=Markup(style),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )


def title(results: Results) -> str:
    """What was found, in one line."""
    summary = results.summary
    if not summary.problems:
        return "No problem was judged yet"
    faster = percent(summary.fast[f"{MATTERS:g}"])
    mean = f", {times(summary.geomean)} in the geomean" if summary.geomean is not None else ""
    problems = "1 problem" if summary.problems == 1 else f"{summary.problems} problems"
    return f"{faster} of {problems} faster by more than 5%{mean}"


def lead(results: Results) -> str:
    """What the title leaves out."""
    whose = (
        f"Kernels of {Path(results.candidates).name}, put to the judge"
        if results.candidates
        else "Kernels that Kernelwright wrote"
    )
    still = "1 problem is" if results.left == 1 else f"{results.left} problems are"
    left = f" {still} still to be run." if results.left else ""
    return (
        f"{whose}: {percent(results.summary.correct)} correct; speedups are over the fastest "
        f"baseline, with a failure counted as 1.0.{left}"
    )


def cards(summary: Summary) -> list[Card]:
    """The figures that matter most."""
    aside = len(summary.set_aside)
    without = f"without {aside} that say nothing" if aside else "failures as 1.0"
    found = [
        Card("correct", percent(summary.correct), f"of {summary.problems} judged"),
        Card("geomean", _times(summary.geomean), without),
        Card("median", _times(summary.median), "over the fastest baseline"),
    ]
    if summary.sol is not None:
        found.append(Card("SOL score", _plain(summary.sol), "0.5 at the baseline, 1 at the bound"))
    if summary.pass_at_1 is not None:
        found.append(Card("pass@1", percent(summary.pass_at_1), "one sample, drawn at random"))
    if summary.seconds is not None:
        first, _, rest = cost_text(summary).partition(", ")
        found.append(Card("a problem takes", first, rest or "in the mean"))
    return found


def columns(rows: Sequence[Row]) -> Columns:
    """The columns that some row has something for; of baselines the usual two first."""
    finished = [row for row in rows if isinstance(row, Finished)]
    named = dict.fromkeys(["eager", "compile"])
    for row in finished:
        named |= dict.fromkeys(row.document.baselines)
    return Columns(
        level=any(row.labels.level is not None for row in rows),
        family=any(row.labels.family for row in rows),
        baselines=tuple(named),
        paid=any(row.tokens for row in rows if not isinstance(row, Skipped)),
    )


def headings(shown: Columns) -> list[str]:
    """What stands above the problems' table."""
    baselines = [f"over {baseline_name(name)}" for name in shown.baselines]
    labels = ["level"] if shown.level else []
    labels += ["family"] if shown.family else []
    ends = ["SOL", "of roofline", "trials", "time", *(["tokens", "USD"] if shown.paid else [])]
    return ["problem", *labels, "result", "over the fastest", *baselines, *ends]


def cells(row: Row, shown: Columns, folder: Path) -> list[Cell]:
    """A row under `headings`."""
    found = [Cell(row.name, row.name.lower(), number=False, link=_report_of(row, folder))]
    if shown.level:
        level = row.labels.level
        found.append(Cell("" if level is None else str(level), "" if level is None else level))
    if shown.family:
        found.append(Cell(row.labels.family, row.labels.family, number=False))
    tone = "good" if _won(row) else ("plain" if is_correct(row) else "bad")
    found.append(Cell(in_brief(row), in_brief(row), number=False, tone=tone))
    paid = _paid(row) if shown.paid else []
    if not isinstance(row, Finished):
        empty = [Cell("")] * (len(shown.baselines) + 4)
        return [*found, *empty, _duration(row.seconds), *paid]
    document = row.document
    found.append(_against_best(row))
    found += [_speedup(_over(row, name)) for name in shown.baselines]
    fraction = document.roofline_fraction
    found += [
        Cell(_plain(row.sol), row.sol if row.sol is not None else ""),
        Cell(percent(fraction), fraction) if fraction is not None else Cell("–"),
        Cell(str(document.trials), document.trials),
        _duration(row.seconds),
    ]
    return [*found, *paid]


def _paid(row: Row) -> list[Cell]:
    """What models took, and what that cost."""
    if isinstance(row, Skipped):
        return [Cell("")] * 2
    return [Cell(f"{row.tokens:,}", row.tokens), Cell(f"{row.usd:.3f}", row.usd)]


def _against_best(row: Finished) -> Cell:
    speedup = row.document.speedup
    if not is_correct(row) or speedup.best_baseline is None:
        return Cell("–")
    bounds = speedup.interval
    shown = f" ({bounds[0]:.2f}–{bounds[1]:.2f})" if bounds is not None else ""
    won = "won" if _won(row) else ""
    return Cell(f"{times(speedup.best_baseline)}{shown}", speedup.best_baseline, tone=won)


def _over(row: Finished, name: str) -> float | None:
    if against := row.document.baselines.get(name):
        return against.speedup
    told = {"eager": row.document.speedup.eager, "compile": row.document.speedup.compile}
    return told.get(name)


def _won(row: Row) -> bool:
    return isinstance(row, Finished) and row.document.status == "faster"


def _report_of(row: Row, folder: Path) -> str:
    """A relative link to the run's own report, where it lies beside the page."""
    if not isinstance(row, Finished) or not row.document.run_dir:
        return ""
    report = Path(row.document.run_dir) / "report.html"
    beside = folder.resolve()
    if not report.is_file() or not report.resolve().is_relative_to(beside):
        return ""
    return os.path.relpath(report.resolve(), beside)


def trouble(row: Row) -> str:
    """Why a row has no figures, or figures to be taken with care."""
    if isinstance(row, Broken | Skipped):
        return row.error[-ERROR_LIMIT:]
    told = list(row.cautions)
    told += [f"{one.name} is {one.used} instead of {one.given}" for one in row.scaled]
    told += [
        f"{sample.file}: {sample.detail}" for sample in row.document.samples if not sample.correct
    ]
    return "; ".join(told)[:ERROR_LIMIT]


def plot(rows: Sequence[Row]) -> tuple[list[Dot], list[Line]]:
    """Speedups in order of size on a logarithmic axis; empty where fewer than two are known."""
    timed = [
        row
        for row in rows
        if isinstance(row, Finished) and is_correct(row) and row.document.speedup.best_baseline
    ]
    timed.sort(key=lambda row: row.document.speedup.best_baseline or 1.0)
    if len(timed) < 2:
        return [], []
    ends = [bound for row in timed for bound in _interval(row)]
    low, high = min(0.8, *ends), max(1.25, *ends)

    def height(ratio: float) -> float:
        share = math.log(ratio / low) / math.log(high / low)
        return HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN)

    step = (WIDTH - MARGIN_LEFT - 2 * MARGIN) / (len(timed) - 1)
    dots = []
    for place, row in enumerate(timed):
        best = row.document.speedup.best_baseline or 1.0
        first, last = _interval(row)
        tone = "aside" if is_set_aside(row) else ("good" if _won(row) else "plain")
        x = MARGIN_LEFT + MARGIN + place * step
        told = f"{row.name}: {times(best)}"
        dots.append(Dot(x, height(best), height(first), height(last), tone, told))
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    return dots, [Line(height(tick), f"{tick:g}×", tick == 1.0) for tick in ticks]


_TICKS = (0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0)


def _interval(row: Finished) -> tuple[float, float]:
    best = row.document.speedup.best_baseline or 1.0
    first, last = row.document.speedup.interval or (best, best)
    return max(first, 1e-6), max(last, 1e-6)


def _times(value: float | None) -> str:
    return times(value) if value is not None else "–"


def _plain(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else "–"


def _speedup(value: float | None) -> Cell:
    return Cell(times(value), value) if value is not None else Cell("–")


def _duration(seconds: float) -> Cell:
    return Cell(duration(seconds), seconds)
