"""The report's table of workloads, as words."""

from typing import NamedTuple

from graph.record import RunRecord
from graph.report.words import baseline_name, clip, milliseconds, percent, times


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
