"""The list of runs as a page: what `python -m graph.runs --serve` shows."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from graph.report.listing import STATES, RunRow, Wanted, age
from graph.report.words import Tone, duration, money_text, times
from graph.report.write import environment, hash_of, style

TONES: Mapping[str, Tone] = {
    "faster": "good", "correct": "plain", "compiled": "plain", "failed": "warn",
    "running": "plain", "stopped": "warn", "broken": "bad",
}  # fmt: skip


def render_index(rows: Sequence[RunRow], wanted: Wanted, names: Mapping[str, str]) -> str:
    """The page: a form of filters, and a row a run.

    Args:
        rows: what is shown.
        wanted: the filters that chose it.
        names: the part of an address that stands for a run, by its folder.
    """
    return (
        environment()
        .get_template("runs.html.j2")
        .render(
            rows=rows,
            wanted=wanted,
            names=names,
            states=STATES,
            tones=TONES,
            age=age,
            speed=speed,
            cost=cost,
            took=took,
            style=Markup(style()),
        )
    )


def style_hash() -> str:
    """What the page's style is named by in its content security policy."""
    return hash_of(style())


def speed(row: RunRow) -> tuple[str, str]:
    """A run's speedup and its interval; empty where nothing was timed."""
    if row.speedup is None or row.low is None or row.high is None:
        return "", ""
    low, high = times(row.low).rstrip("×"), times(row.high).rstrip("×")
    return times(row.speedup), f"{low}–{high}" + ("" if row.finished else ", so far")


def cost(row: RunRow) -> str:
    """What models cost; empty where nothing is known of the run."""
    if row.state == "broken":
        return ""
    return "unknown" if row.usd is None else money_text(row.usd)


def took(row: RunRow) -> str:
    """Working time."""
    return "" if row.seconds is None else duration(row.seconds)
