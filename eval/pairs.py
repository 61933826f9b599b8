"""Two evaluations problem by problem: the ratios of their speedups, and what may be said of them.

The second over the first: above 1, the second is faster. A pair is a problem that was judged in
both; where a kernel failed, it stands for 1.0, as in the geomean.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from eval.results import Results
from eval.rows import Finished, Row, Skipped
from eval.score import geomean, is_correct, is_set_aside, ratio

Change = Literal["better", "worse", "same", "mended", "broken", "both failed"]

RESAMPLES = 10_000
LEAST_PAIRS = 3
# Half a 95% interval of a normal distribution, in standard deviations.
Z95 = 1.959964


class Pair(NamedTuple):
    """One problem in both. `low` and `high` bound the ratio at 95%; None where no one can say."""

    name: str
    first: float
    second: float
    ratio: float
    low: float | None
    high: float | None
    change: Change


class Overall(NamedTuple):
    """All pairs together: the geomean of their ratios with a 95% interval, and a paired test.

    The interval is a bootstrap (BCa) over problems: how far another draw of problems like these
    might read. `p` is of Wilcoxon's signed-rank test that neither is faster. None where there are
    too few pairs for either.
    """

    pairs: int
    ratio: float
    low: float | None
    high: float | None
    p: float | None


class Comparison(NamedTuple):
    """What became of every problem from the first evaluation to the second."""

    pairs: tuple[Pair, ...]
    overall: Overall | None
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    aside: tuple[str, ...]

    def of(self, *changes: Change) -> list[Pair]:
        """The pairs with these changes, the largest change first."""
        found = [pair for pair in self.pairs if pair.change in changes]
        return sorted(found, key=lambda pair: -abs(math.log(pair.ratio)))


def compare(first: Results, second: Results) -> Comparison:
    """Pair two evaluations by the names of their problems.

    What is a canary or a constant in either is left out of all ratios.
    """
    before, after = _judged(first), _judged(second)
    both = [name for name in before if name in after]
    aside = tuple(name for name in both if is_set_aside(before[name]) or is_set_aside(after[name]))
    pairs = tuple(pair_of(before[name], after[name]) for name in both if name not in aside)
    return Comparison(
        pairs=pairs,
        overall=overall([pair.ratio for pair in pairs]),
        only_first=tuple(name for name in before if name not in after),
        only_second=tuple(name for name in after if name not in before),
        aside=aside,
    )


def _judged(results: Results) -> dict[str, Row]:
    return {row.name: row for row in results.rows if not isinstance(row, Skipped)}


def pair_of(first: Row, second: Row) -> Pair:
    """One problem, once and again."""
    before, after = ratio(first), ratio(second)
    change, low, high = after / before, None, None
    spread = _spread(first), _spread(second)
    if spread[0] is not None and spread[1] is not None:
        half = Z95 * math.hypot(spread[0], spread[1])
        low, high = change * math.exp(-half), change * math.exp(half)
    return Pair(first.name, before, after, change, low, high, _change(first, second, low, high))


def _change(first: Row, second: Row, low: float | None, high: float | None) -> Change:
    match is_correct(first), is_correct(second):
        case False, False:
            return "both failed"
        case False, True:
            return "mended"
        case True, False:
            return "broken"
        case _:
            pass
    if low is not None and low > 1.0:
        return "better"
    if high is not None and high < 1.0:
        return "worse"
    return "same"


def _spread(row: Row) -> float | None:
    """The standard deviation of a speedup's logarithm, from its 95% interval."""
    if not is_correct(row) or not isinstance(row, Finished):
        return None
    interval = row.document.speedup.interval
    if interval is None or interval[0] <= 0:
        return None
    return math.log(interval[1] / interval[0]) / (2 * Z95)


def overall(ratios: Sequence[float]) -> Overall | None:
    """The ratios of all pairs in one figure; None of none."""
    middle = geomean(ratios)
    if middle is None:
        return None
    logs = np.log(np.asarray(ratios))
    if len(ratios) < LEAST_PAIRS or float(np.ptp(logs)) == 0.0:
        # Of equal ratios there is nothing to resample.
        return Overall(len(ratios), middle, None, None, None)
    found = stats.bootstrap(
        (logs,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    p = float(stats.wilcoxon(logs, zero_method="zsplit").pvalue)
    return Overall(len(ratios), middle, float(np.exp(found.low)), float(np.exp(found.high)), p)
