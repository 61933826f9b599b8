"""What the report says of a task's workloads: a table, and what the story has of it."""

from collections.abc import Sequence
from typing import NamedTuple

from graph.record import BASELINE_PLAN, RunRecord
from graph.report.words import baseline_name, clip, milliseconds, percent, times
from knowledge.emit_dispatch import left_as_given
from tools.verdict import Timing, Trial

NAMED = 6


class Row(NamedTuple):
    """One workload; figures are empty where no kernel was timed on it."""

    name: str
    sizes: str
    baseline: str
    baseline_time: str
    kernel_time: str
    speedup: str
    interval: str
    roof: str
    tone: str


def rows(record: RunRecord) -> list[Row]:
    """Every workload in the task's order; none where the task has only one."""
    found: list[Row] = []
    for one in record.workloads:
        best = one.baselines.best
        name = one.baseline or (best.name if best is not None else "")
        ms = one.baseline_ms or (best.median_ms if best is not None else None)
        found.append(
            Row(
                name=clip(one.name),
                sizes=clip(one.sizes),
                baseline=baseline_name(name),
                baseline_time=milliseconds(ms) if ms is not None else "not measured",
                kernel_time=milliseconds(one.kernel_ms) if one.kernel_ms is not None else "",
                speedup=times(one.speedup) if one.speedup is not None else "",
                interval="–".join(f"{bound:.2f}" for bound in one.interval or ()),
                roof=percent(one.roofline_fraction) if one.roofline_fraction is not None else "",
                tone="winner" if one.faster else "baseline",
            )
        )
    return found


def in_short(record: RunRecord, ahead: Trial | None) -> tuple[str, str]:
    """A line on the workloads, and the sentences behind it.

    Args:
        record: of a task with several.
        ahead: the winner, or what leads as first measured; None where nothing does.
    """
    count = len(record.workloads)
    names = listed([one.name for one in record.workloads])
    if record.winner is not None and record.trial(record.winner).plan == BASELINE_PLAN:
        why = "No kernel was shown to be faster in the geometric mean."
        return f"{count}, and on all of them the reference is kept: {names}", why
    if ahead is None:
        return (
            f"{count}, to be served by one kernel: {names}",
            "No right kernel has been timed on them.",
        )
    timing = record.timing or ahead.timing
    if timing is None or not timing.workloads:
        return f"{count}, served by one kernel: {names}", "It was timed on none of them."
    order = sorted(timing.workloads, key=lambda one: one.timing.against_best.speedup)
    worst, best = (
        f"{clip(one.name)} with {times(one.timing.against_best.speedup)}"
        for one in (order[0], order[-1])
    )
    mean = "The headline is the geometric mean, each over the workload's own fastest baseline."
    first = [] if timing.confirmed else ["So it was measured once, which nothing has confirmed."]
    line = f"{count}, served by one kernel: best on {best}, worst on {worst}"
    return line, " ".join([mean, *first, *_exceptions(record, ahead, timing)])


def _exceptions(record: RunRecord, ahead: Trial, timing: Timing) -> list[str]:
    """Sentences on where the reference is kept, and where else nothing is gained."""
    inputs = {one.name: one.inputs for one in record.workloads}
    kept = left_as_given(ahead.candidate.source, record.facts.source, inputs)
    level = [
        one.name
        for one in timing.workloads
        if not one.timing.faster and one.name not in (kept or ())
    ]
    told: list[str] = []
    if kept is not None:
        told.append(f"The reference is kept on {listed(kept) if kept else 'none of them'}.")
    if level:
        told.append(f"No gain is shown on {listed(level)}.")
    return told


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, the first few of many."""
    shown = [clip(name) for name in names[:NAMED]]
    if (more := len(names) - len(shown)) > 0:
        shown.append(f"{more} more")
    return " and ".join([part for part in (", ".join(shown[:-1]), shown[-1]) if part])
