"""What a suite's results amount to: pure functions from rows to the field's scores.

Nothing is dropped in silence. A failure counts as 1.0 in the geomean and is listed; a task on which
the judge can't tell right from wrong, or whose output is a constant, is kept out of the speed
scores and listed; one that this machine can't hold was not judged, counts nowhere, and is listed.
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median

from pydantic import Field

from eval.rows import Finished, Row, Skipped
from knowledge.opgraph import Frozen

THRESHOLDS = (1.0, 1.05, 1.5, 2.0, 5.0)
# What is within this of the baseline's time counts as neither faster nor slower.
MATTERS = 1.05


class Summary(Frozen):
    """A suite in a few figures; shares are of all problems that were judged.

    Speedups are over the fastest baseline. `None` stands where there is nothing to say it of.
    """

    problems: int = Field(description="judged: those that were skipped are not among them")
    correct: float
    fast: dict[str, float] = Field(
        description="by a threshold p, as text: the share with a confirmed win of more than p times"
    )
    slow: float = Field(
        description="the share with a correct kernel that takes over 1.05 times as long"
    )
    geomean: float | None = Field(description="failures as 1.0, without canaries and constants")
    geomean_of_all: float | None = Field(None, description="with canaries and constants")
    median: float | None
    sol: float | None = Field(
        None, description="mean speed-of-light score, a failure as 0, of those that have one"
    )
    pass_at_1: float | None = Field(
        None, description="--candidates: the mean share of a problem's samples that are correct"
    )
    median_seconds: float | None = Field(description="of a problem's whole run")
    seconds: float | None = Field(None, description="a problem, in the mean")
    tokens: float | None = Field(None, description="a problem, in the mean")
    usd: float | None = Field(None, description="a problem, in the mean, of models with a price")
    failed: tuple[str, ...] = ()
    canaries: tuple[str, ...] = Field((), description="where some wrong kernel would pass")
    constants: tuple[str, ...] = Field((), description="where the output hangs on no input")
    scaled: tuple[str, ...] = Field((), description="judged at smaller sizes than their author's")
    skipped: tuple[str, ...] = ()

    @property
    def set_aside(self) -> tuple[str, ...]:
        """Those kept out of the speed scores."""
        return (*self.canaries, *(name for name in self.constants if name not in self.canaries))


def summarize(rows: Sequence[Row]) -> Summary:
    """The scores of a suite's rows."""
    judged = [row for row in rows if not isinstance(row, Skipped)]
    counted = [row for row in judged if not is_set_aside(row)]
    ratios = [ratio(row) for row in counted]
    finished = [row for row in judged if isinstance(row, Finished)]
    sols = [score for row in counted if (score := _sol(row)) is not None]
    passed = [share for row in judged if (share := _passed(row)) is not None]
    return Summary(
        problems=len(judged),
        correct=_share(sum(is_correct(row) for row in judged), len(judged)),
        fast={
            f"{p:g}": _share(sum(is_faster(row, p) for row in counted), len(judged))
            for p in THRESHOLDS
        },
        slow=_share(sum(is_slower(row, MATTERS) for row in counted), len(judged)),
        geomean=geomean(ratios),
        geomean_of_all=geomean([ratio(row) for row in judged]),
        median=median(ratios) if ratios else None,
        sol=fmean(sols) if any(isinstance(row, Finished) and row.sol for row in counted) else None,
        pass_at_1=fmean(passed) if any(row.document.samples for row in finished) else None,
        median_seconds=median(row.seconds for row in judged) if judged else None,
        seconds=fmean(row.seconds for row in judged) if judged else None,
        tokens=_mean([row.tokens for row in judged], len(judged)),
        usd=_mean([row.usd for row in judged], len(judged)),
        failed=tuple(row.name for row in judged if not is_correct(row)),
        canaries=tuple(row.name for row in finished if row.is_canary),
        constants=tuple(row.name for row in finished if row.is_constant),
        scaled=tuple(row.name for row in judged if row.scaled),
        skipped=tuple(row.name for row in rows if isinstance(row, Skipped)),
    )


def _sol(row: Row) -> float | None:
    return row.sol if isinstance(row, Finished) and is_correct(row) else 0.0


def _passed(row: Row) -> float | None:
    """The chance that one sample, drawn from a problem's, is correct: pass@1 without bias."""
    if isinstance(row, Finished):
        samples = row.document.samples
        return fmean(sample.correct for sample in samples) if samples else None
    return 0.0


def _mean(values: Sequence[float], count: int) -> float | None:
    return sum(values) / count if count else None


class Breakdown(Frozen):
    """The scores of a suite's parts by name; empty where its problems carry no such label."""

    parts: dict[str, Summary] = Field(description="`non-holdout` and `holdout`")
    families: dict[str, Summary]
    kinds: dict[str, Summary] = Field(description="`single`, `chain` and `network`")
    levels: dict[str, Summary] = Field({}, description="by a level's number, as text")

    @property
    def named(self) -> dict[str, Summary]:
        """All of them in the order in which they are shown."""
        kinds = {f"kind: {name}": summary for name, summary in self.kinds.items()}
        levels = {f"level {name}": summary for name, summary in self.levels.items()}
        return {**self.parts, **levels, **self.families, **kinds}


def break_down(rows: Sequence[Row]) -> Breakdown:
    """The scores of each part, family and kind that the rows belong to, in the suite's order."""
    held = any(row.labels.holdout for row in rows)
    return Breakdown(
        parts=_by(rows, lambda row: "holdout" if row.labels.holdout else "non-holdout")
        if held
        else {},
        families=_by(rows, lambda row: row.labels.family),
        kinds=_by(rows, lambda row: row.labels.kind),
        levels=_by(rows, lambda row: "" if row.labels.level is None else str(row.labels.level)),
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


def is_set_aside(row: Row) -> bool:
    """Whether a row's speed says nothing: a canary, or an output that hangs on no input."""
    return isinstance(row, Finished) and (row.is_canary or row.is_constant)


def has_own_kernel(row: Row) -> bool:
    """Whether a kernel was judged correct that is not a baseline in a kernel's place."""
    return is_correct(row) and isinstance(row, Finished) and row.verdicts.get("correct", 0) > 0
