"""The report's two plots as inline SVG: deterministic, text kept as text, colours from the page.

Each is drawn twice, for a wide and for a narrow page, because scaled-down labels cannot be read on
a phone.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from io import StringIO
from typing import Any, NamedTuple

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from graph.record import RunRecord
from graph.report.words import baseline_name, duration, milliseconds, quantity, times
from tools.facts import Roofline
from tools.verdict import Comparison, Correct, Trial

# matplotlib wants hexadecimal colours; these stand for the page's variables until the SVG is done.
INK, MUTED, GRID, ACCENT, BAD, PAPER = (
    "#000001",
    "#000002",
    "#000003",
    "#000004",
    "#000005",
    "#000006",
)
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", ACCENT: "accent", BAD: "bad", PAPER: "card"}
_TEXT = 12.0
# Of a longer run those that were ahead when they were measured are drawn, and the latest.
MOST_POINTS = 80
_LABEL_GAP = 16.0
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": _TEXT,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "figure.facecolor": "none",
    "path.simplify": False,
}


class Size(NamedTuple):
    """A drawing's size in CSS pixels, and the class by which the page's style chooses it."""

    name: str
    width: int
    height: int


SIZES = (Size("wide", 520, 340), Size("narrow", 330, 300))


def speedup_plot(record: RunRecord, when: Mapping[int, float] | None = None) -> Markup | None:
    """Speedup over the strongest baseline by trial, 95% intervals, running best and confirmation.

    Args:
        record: of the run.
        when: seconds of work until a trial was judged, for the axis at the top.

    Returns:
        None where nothing was timed.
    """
    timed = _timed(record.trials)
    if not timed:
        return None
    number, best = max(timed, key=lambda one: one[1].speedup)
    alternative = (
        f"Speedup of {len(timed)} timed trials over the fastest baseline with 95% intervals; the "
        f"best is trial {number} with {times(best.speedup)}"
    )
    return _both_sizes(
        "speedup", alternative, lambda axes, size: _draw_speedup(axes, size, record, when or {})
    )


def roofline_plot(record: RunRecord) -> Markup | None:
    """Operations a second against operations a byte, under the machine's two ceilings.

    None where the op does no arithmetic or moves no bytes: a logarithmic axis has no place for it.
    """
    roof = record.roofline
    if min(roof.flops, roof.moved_bytes) <= 0:
        return None
    told = "".join(f"; {one.name} {milliseconds(one.ms)}" for one in _points(record) if one.name)
    alternative = (
        f"Roofline: {roof.flops / roof.moved_bytes:.3g} operations a byte under ceilings of "
        f"{quantity(roof.bandwidth_gbps)} GB/s and {quantity(roof.peak_gflops)} GFLOP/s{told}"
    )
    return _both_sizes("roofline", alternative, lambda axes, _: _draw_roofline(axes, record))


def _both_sizes(name: str, alternative: str, draw: Callable[[Axes, Size], None]) -> Markup:
    drawings = []
    for size in SIZES:
        with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{name}-{size.name}"}):
            figure = Figure(
                figsize=(size.width / 72, size.height / 72), dpi=72, layout="constrained"
            )
            FigureCanvasSVG(figure)
            axes = figure.subplots()
            draw(axes, size)
            out = StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None})
        drawings.append(_embeddable(out.getvalue(), f"{name}-{size.name}", size, alternative))
    return Markup("".join(drawings))


def _embeddable(svg: str, prefix: str, size: Size, alternative: str) -> str:
    """The bare element: no metadata, ids that no other drawing has, colours of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r"<style.*?</style>|font-family: [^;\"]*;", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    opening = (
        f'<svg class="plot {size.name}" role="img" aria-label="{escape(alternative)}" '
        f'viewBox="0 0 {size.width} {size.height}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return re.sub(r"<svg[^>]*>", opening, svg, count=1)


def _timed(trials: Iterable[Trial]) -> list[tuple[int, Comparison]]:
    """Numbers of the timed trials with their comparison to the strongest baseline."""
    return [
        (trial.number, trial.timing.against_best) for trial in trials if trial.timing is not None
    ]


def _draw_speedup(axes: Axes, size: Size, record: RunRecord, when: Mapping[int, float]) -> None:
    timed = _timed(record.trials)
    last = max(trial.number for trial in record.trials)
    confirmed = record.timing.against_best if record.timing else None
    shown = [comparison for _, comparison in timed] + ([confirmed] if confirmed else [])
    _scale_speedups(axes, shown)
    axes.axhline(1.0, color=MUTED, linewidth=1.2, dashes=(4, 3))
    axes.annotate(
        "fastest baseline",
        (1, 1),
        xycoords=("axes fraction", "data"),
        xytext=(-2, -13),
        textcoords="offset points",
        ha="right",
        color=MUTED,
        fontsize=_TEXT - 1,
    )
    steps, best = [(0.5, 1.0)], 1.0
    for number, comparison in timed:
        best = max(best, comparison.speedup)
        steps.append((number, best))
    axes.step(
        *zip(*steps, (last + 0.4, best), strict=True),
        where="post",
        color=ACCENT,
        linewidth=1.5,
        alpha=0.55,
    )
    _whiskers(axes, _telling(timed), "o")
    failed = [trial.number for trial in record.trials if not isinstance(trial.verdict, Correct)]
    axes.plot(
        failed,
        [0.03] * len(failed),
        "x",
        color=BAD,
        markersize=6,
        transform=axes.get_xaxis_transform(),
    )
    if confirmed:
        kept = "confirmed" if record.status == "faster" else "measured again"
        _whiskers(axes, [(last + 1, confirmed)], "D")
        axes.annotate(
            f"{kept} {times(confirmed.speedup)}",
            # Above the line of the best so far, too.
            (last + 1, max([confirmed.high, *(one.speedup for _, one in timed)])),
            xytext=(6, 7),
            textcoords="offset points",
            ha="right",
            color=INK,
            fontsize=_TEXT,
        )
    axes.set_xlim(0.5, last + (1.5 if confirmed else 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if 1 <= value <= last else "")
    )
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("trial" + (" (× rejected)" if failed else ""))
    axes.set_ylabel("speedup")
    _time_axis(axes, size, last, when)


def _telling(timed: list[tuple[int, Comparison]]) -> list[tuple[int, Comparison]]:
    """Of very many, those that were ahead of all before, and the latest."""
    found, best = [], 0.0
    for place, (number, one) in enumerate(timed):
        if one.speedup > best or len(timed) - place <= MOST_POINTS:
            found.append((number, one))
        best = max(best, one.speedup)
    return found[-2 * MOST_POINTS :]


def _whiskers(axes: Axes, shown: list[tuple[int, Comparison]], marker: str) -> None:
    """Speedups with their intervals; all in one call, so that they share their marks in the SVG."""
    axes.errorbar(
        [at for at, _ in shown],
        [one.speedup for _, one in shown],
        yerr=[
            [max(one.speedup - one.low, 0.0) for _, one in shown],
            [max(one.high - one.speedup, 0.0) for _, one in shown],
        ],
        fmt=marker,
        color=ACCENT,
        markersize=7 if marker == "D" else 6,
        elinewidth=1.4,
        capsize=3,
        zorder=3,
    )


def _time_axis(axes: Axes, size: Size, last: int, when: Mapping[int, float]) -> None:
    """Working time when trials were judged, along the top; a few of them, evenly spread."""
    known = sorted(number for number in when if 1 <= number <= last)
    if not known:
        return
    most = 6 if size.name == "wide" else 4
    chosen = sorted({known[round(at)] for at in _spread(len(known), most)})
    top = axes.secondary_xaxis("top")
    top.set_xticks(chosen, [duration(when[number]) for number in chosen])
    top.tick_params(length=0, labelsize=_TEXT - 1)
    top.spines["top"].set_visible(False)


def _spread(count: int, most: int) -> list[float]:
    """At most so many indices below `count`, the first and the last among them."""
    if count <= most:
        return [float(at) for at in range(count)]
    return [at * (count - 1) / (most - 1) for at in range(most)]


def _scale_speedups(axes: Axes, shown: list[Comparison]) -> None:
    """Linear while everything is within a factor of six, else logarithmic with readable ticks."""
    low = min(1.0, *(comparison.low for comparison in shown))
    high = max(1.0, *(comparison.high for comparison in shown))
    if low <= 0 or high / low < 6:
        span = high - low
        axes.set_ylim(max(0.0, low - 0.18 * span - 0.05), high + 0.2 * span + 0.05)
    else:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.6, high * 1.8)
        _round_ticks(axes.yaxis, low / 1.6, high * 1.8)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def _round_ticks(axis: Any, low: float, high: float) -> None:
    """Ticks at 1, 2, 5 times powers of ten, thinned to powers of ten over wide ranges."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    axis.set_major_locator(FixedLocator([m * 10.0**d for d in decades for m in within]))
    axis.set_minor_locator(NullLocator())


class Point(NamedTuple):
    """A measured way of running the op: its time, and how it is drawn."""

    name: str
    ms: float
    colour: str
    marker: str


def _points(record: RunRecord) -> list[Point]:
    rivals = {row.name: row.median_ms for row in record.baselines.rows if row.median_ms is not None}
    points = [Point(baseline_name(name), ms, INK, "s") for name, ms in rivals.items()]
    others = {number for number, _ in _telling(_timed(record.trials)) if number != record.winner}
    for trial in record.trials:
        if trial.number in others and isinstance(trial.verdict, Correct) and trial.verdict.timing:
            points.append(Point("", trial.verdict.timing.candidate_ms, ACCENT, "."))
    if record.timing:
        points.append(
            Point(f"kernel (trial {record.winner})", record.timing.candidate_ms, ACCENT, "D")
        )
    return points


def _draw_roofline(axes: Axes, record: RunRecord) -> None:
    roof, points = record.roofline, _points(record)
    intensity = roof.flops / roof.moved_bytes
    ridge = roof.peak_gflops / roof.bandwidth_gbps
    left = min(intensity, ridge) / (15 if intensity > ridge else 6)
    right = max(intensity, ridge) * 12
    rates = [roof.flops / point.ms / 1e6 for point in points]
    bottom = min([*rates, left * roof.bandwidth_gbps]) / 2
    top = max([*rates, roof.peak_gflops]) * 3
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
    _round_ticks(axes.xaxis, left, right)
    _round_ticks(axes.yaxis, bottom, top)
    plain = FuncFormatter(lambda value, _: f"{value:,g}")
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    axes.plot(
        [left, ridge, right],
        [left * roof.bandwidth_gbps, roof.peak_gflops, roof.peak_gflops],
        color=INK,
        linewidth=1.6,
    )
    axes.axvline(intensity, color=MUTED, linewidth=1, dashes=(2, 3))
    # What looks alike in one call each, so that it shares its mark in the SVG.
    for marker, colour in dict.fromkeys((point.marker, point.colour) for point in points):
        alike = [
            rate
            for point, rate in zip(points, rates, strict=True)
            if (point.marker, point.colour) == (marker, colour)
        ]
        axes.plot([intensity] * len(alike), alike, marker, color=colour, markersize=7, zorder=3)
    axes.set_xlabel("operations per byte moved")
    axes.set_ylabel("GFLOP/s")
    if figure := axes.get_figure(root=True):
        figure.draw_without_rendering()  # labels need the axes where the layout puts them
    _label_ceilings(axes, roof, (left, right))
    _label_points(
        axes, intensity, [(p.name, r) for p, r in zip(points, rates, strict=True) if p.name]
    )


def _label_ceilings(axes: Axes, roof: Roofline, span: tuple[float, float]) -> None:
    left, right = span
    bandwidth, peak = roof.bandwidth_gbps, roof.peak_gflops
    ridge, intensity = peak / bandwidth, roof.flops / roof.moved_bytes
    # The points and their names stand right of the op's intensity; the label keeps clear of them.
    beyond = intensity > ridge
    axes.annotate(
        f"{quantity(peak)} GFLOP/s",
        (ridge if beyond else right, peak),
        xytext=(0 if beyond else -4, 6),
        textcoords="offset points",
        ha="left" if beyond else "right",
        color=MUTED,
    )
    lower = (left, left * bandwidth)
    (x0, y0), (x1, y1) = axes.transData.transform([lower, (ridge, peak)])
    axes.annotate(
        f"{quantity(bandwidth)} GB/s",
        lower,
        xytext=(8, 14),
        textcoords="offset points",
        color=MUTED,
        rotation=math.degrees(math.atan2(y1 - y0, x1 - x0)),
        rotation_mode="anchor",
    )


def _label_points(axes: Axes, intensity: float, labels: list[tuple[str, float]]) -> None:
    """Names beside their points, pushed apart where points crowd."""
    floor = -math.inf
    for name, rate in sorted(labels, key=lambda label: label[1]):
        at = float(axes.transData.transform((intensity, rate))[1])
        placed = max(at, floor + _LABEL_GAP)
        floor = placed
        axes.annotate(
            name,
            (intensity, rate),
            xytext=(11, placed - at - 4),
            textcoords="offset points",
            color=INK,
        )
