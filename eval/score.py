"""What a suite's results amount to: pure functions from rows to the field's scores.

Nothing is dropped in silence. A failure counts as 1.0 in the geomean and is listed; a task that the
judge cautioned about (for example that its output does not depend on its input) is kept out of the
speed scores and listed.
"""

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from eval.suite import Labels
from graph.record import Status
from knowledge.opgraph import Frozen

THRESHOLDS = (1.0, 1.05, 1.5, 2.0)
# What is within this of the baseline's time counts as neither faster nor slower.
MATTERS = 1.05


class _Read(BaseModel):
    """A part of what `graph.run --json` prints; newer keys are let through."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Speedups(_Read):
    """Confirmed speedups; None where there was nothing to compare."""

    eager: float | None
    compile: float | None
    best_baseline: float | None
    interval: tuple[float, float] | None


class Document(_Read):
    """One run's result."""

    status: Status
    task: str
    device: str
    backend: str | None
    speedup: Speedups
    roofline_fraction: float | None
    trials: int
    seconds: float
    usage: dict[str, Any]
    best: str | None
    run_dir: str


class Finished(Frozen):
    """A problem whose run came to its end, whatever it found."""

    kind: Literal["finished"] = "finished"
    name: str
    labels: Labels = Labels()
    seconds: float
    document: Document
    cautions: tuple[str, ...] = ()


class Broken(Frozen):
    """A problem whose run did not come to its end."""

    kind: Literal["broken"] = "broken"
    name: str
    labels: Labels = Labels()
    seconds: float
    reason: Literal["bad_input", "crashed", "timed_out"]
    error: str


Row = Annotated[Finished | Broken, Field(discriminator="kind")]


class Summary(Frozen):
    """A suite in a few figures; shares are of all problems, speedups over the fastest baseline.

    `fast` maps a threshold p, as text, to the share of problems with a confirmed kernel more than p
    times faster.
    `slow` is the share whose correct kernel takes more than 1.05 times the baseline's time.
    `geomean` and `median` are None where no problem is left to count; `median_seconds`, what a
    problem's whole run took, where there is no row.
    """

    problems: int
    correct: float
    fast: dict[str, float]
    slow: float
    geomean: float | None
    median: float | None
    median_seconds: float | None
    failed: tuple[str, ...]
    set_aside: tuple[str, ...]


def summarize(rows: Sequence[Row]) -> Summary:
    """The scores of a suite's rows."""
    counted = [row for row in rows if not _set_aside(row)]
    ratios = [ratio(row) for row in counted]
    return Summary(
        problems=len(rows),
        correct=_share(sum(is_correct(row) for row in rows), len(rows)),
        fast={
            f"{p:g}": _share(sum(is_faster(row, p) for row in counted), len(rows))
            for p in THRESHOLDS
        },
        slow=_share(sum(is_slower(row, MATTERS) for row in counted), len(rows)),
        geomean=geomean(ratios),
        median=median(ratios) if ratios else None,
        median_seconds=median(row.seconds for row in rows) if rows else None,
        failed=tuple(row.name for row in rows if not is_correct(row)),
        set_aside=tuple(row.name for row in rows if _set_aside(row)),
    )


class Breakdown(Frozen):
    """The scores of a suite's parts by name; empty where its problems carry no such label."""

    parts: dict[str, Summary] = Field(description="`non-holdout` and `holdout`")
    families: dict[str, Summary]
    kinds: dict[str, Summary] = Field(description="`single`, `chain` and `network`")

    @property
    def named(self) -> dict[str, Summary]:
        """All of them in the order in which they are shown."""
        kinds = {f"kind: {name}": summary for name, summary in self.kinds.items()}
        return {**self.parts, **self.families, **kinds}


def break_down(rows: Sequence[Row]) -> Breakdown:
    """The scores of each part, family and kind that the rows belong to, in the suite's order."""
    held = any(row.labels.holdout for row in rows)
    return Breakdown(
        parts=_by(rows, lambda row: "holdout" if row.labels.holdout else "non-holdout")
        if held
        else {},
        families=_by(rows, lambda row: row.labels.family),
        kinds=_by(rows, lambda row: row.labels.kind),
    )


def _by(rows: Sequence[Row], label: Callable[[Row], str]) -> dict[str, Summary]:
    names = dict.fromkeys(label(row) for row in rows)
    return {name: summarize([row for row in rows if label(row) == name]) for name in names if name}


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0


def is_correct(row: Row) -> bool:
    """Whether the run ended with a kernel that the judge confirmed as correct."""
    return isinstance(row, Finished) and row.document.status in ("faster", "correct")


def is_faster(row: Row, threshold: float) -> bool:
    """Whether the run ended with a confirmed win of more than `threshold` times."""
    return isinstance(row, Finished) and row.document.status == "faster" and ratio(row) > threshold


def is_slower(row: Row, factor: float) -> bool:
    """Whether the run ended with a correct kernel that takes over `factor` times the baseline's."""
    return is_correct(row) and ratio(row) * factor < 1.0


def ratio(row: Row) -> float:
    """What counts for a row: the speedup of a correct kernel, below 1 too; else 1.0."""
    if not is_correct(row) or not isinstance(row, Finished):
        return 1.0
    speedup = row.document.speedup.best_baseline
    return 1.0 if speedup is None else speedup


def geomean(ratios: Sequence[float]) -> float | None:
    """The geometric mean, by logarithms, so that no product under- or overflows; None of nothing.

    Raises:
        ValueError: a ratio that is not positive and finite, which no measurement is.
    """
    if any(not (math.isfinite(value) and value > 0) for value in ratios):
        raise ValueError(
            f"not a ratio of times: {[v for v in ratios if not (math.isfinite(v) and v > 0)]}"
        )
    if not ratios:
        return None
    return math.exp(math.fsum(math.log(value) for value in ratios) / len(ratios))


def _set_aside(row: Row) -> bool:
    return isinstance(row, Finished) and bool(row.cautions)
