"""A right kernel that was timed, for tests of what that is worth."""

from tests.graph import builders
from tools.verdict import Correct, Timing


def timed(low: float, speedup: float | None = None, noise: float = 0.02) -> Correct:
    row = builders.comparison("eager", 1.0, 1.0)
    row = row.model_copy(update={"speedup": speedup or low * 1.02, "low": low, "high": low * 1.05})
    return Correct(
        timing=Timing(
            candidate_ms=9.0, comparisons=(row,), noise=noise, page_faults=0, checked_outputs=8
        )
    )
