"""Figures of several workloads as one: geometric means, with intervals that follow from theirs.

The workloads are timed one after the other, in blocks of their own, so their bootstrap intervals
are independent. The interval of the mean is put together from them on the log scale by the method
of variance estimates recovery (Zou and Donner, 2008): the distances from each estimate to its bound
add up as squares, apart for either side.
"""

import math
import statistics
from collections.abc import Iterable, Sequence

from tools.facts import Baseline, Baselines, Roofline, WorkloadFacts
from tools.verdict import Comparison, Timing, WorkloadTiming

FASTEST = "fastest"


def geomean(values: Iterable[float]) -> float:
    """The geometric mean of positive values."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def combined_timing(workloads: Sequence[WorkloadTiming]) -> Timing:
    """One candidate's figures over all workloads.

    A baseline that was measured on each has a comparison; where the fastest is not the same on all,
    so has `fastest`. The noise is that of workloads that all err the same way.
    """
    timings = [one.timing for one in workloads]
    tables = [{row.baseline: row for row in timing.comparisons} for timing in timings]
    common = [name for name in tables[0] if all(name in table for table in tables)]
    comparisons = [combined(name, [table[name] for table in tables]) for name in common]
    best = [timing.against_best for timing in timings]
    if not common or len({row.baseline for row in best}) > 1:
        comparisons.append(combined(FASTEST, best))
    device = [timing.device_ms for timing in timings if timing.device_ms is not None]
    return Timing(
        candidate_ms=geomean(timing.candidate_ms for timing in timings),
        comparisons=tuple(comparisons),
        noise=combined_noise(timing.noise for timing in timings),
        page_faults=statistics.fmean(timing.page_faults for timing in timings),
        checked_outputs=sum(timing.checked_outputs for timing in timings),
        device_ms=geomean(device) if len(device) == len(timings) else None,
        readings=tuple(reading for timing in timings for reading in timing.readings),
        confirmed=all(timing.confirmed for timing in timings),
        stopped_early=any(timing.stopped_early for timing in timings),
        workloads=tuple(workloads),
    )


def combined(baseline: str, rows: Sequence[Comparison]) -> Comparison:
    """One baseline against the candidate over all workloads; `blocks` is their sum."""
    logs = [math.log(row.speedup) for row in rows]
    down = [log - math.log(row.low) for log, row in zip(logs, rows, strict=True)]
    up = [math.log(row.high) - log for log, row in zip(logs, rows, strict=True)]
    mean = statistics.fmean(logs)
    return Comparison(
        baseline=baseline,
        baseline_ms=geomean(row.baseline_ms for row in rows),
        candidate_ms=geomean(row.candidate_ms for row in rows),
        speedup=math.exp(mean),
        low=math.exp(mean - math.hypot(*down) / len(rows)),
        high=math.exp(mean + math.hypot(*up) / len(rows)),
        blocks=sum(row.blocks for row in rows),
    )


def combined_noise(noises: Iterable[float]) -> float:
    """The noise of the mean where every workload errs by its own, all the same way."""
    return geomean(1.0 + noise for noise in noises) - 1.0


def combined_baselines(workloads: Sequence[WorkloadFacts]) -> Baselines:
    """Baselines as means over all workloads; one that failed on any has failed."""
    first = workloads[0].baselines.rows
    rows = [_combined_row(row, workloads) for row in first]
    best = [one.baselines.best for one in workloads]
    measured = [row for row in best if row is not None and row.median_ms is not None]
    if len(measured) == len(best) and len({row.name for row in measured}) > 1:
        mean = geomean(row.median_ms for row in measured if row.median_ms is not None)
        rows.append(Baseline(name="fastest", median_ms=mean))
    return Baselines(
        rows=tuple(rows), noise=combined_noise(one.baselines.noise for one in workloads)
    )


def _combined_row(row: Baseline, workloads: Sequence[WorkloadFacts]) -> Baseline:
    times: list[float] = []
    for one in workloads:
        found = next((other for other in one.baselines.rows if other.name == row.name), None)
        if found is None or found.median_ms is None:
            reason = found.failed if found is not None else "it was not tried"
            told = f"on {one.name}: {reason}"
            return Baseline(name=row.name, median_ms=None, failed=told)
        times.append(found.median_ms)
    return Baseline(name=row.name, median_ms=geomean(times))


def combined_roofline(workloads: Sequence[WorkloadFacts]) -> Roofline:
    """A roofline whose bounds are the geometric means of the workloads' bounds."""
    roofs = [one.roofline for one in workloads]
    return Roofline(
        bandwidth_gbps=geomean(roof.bandwidth_gbps for roof in roofs),
        peak_gflops=geomean(roof.peak_gflops for roof in roofs),
        moved_bytes=round(geomean(max(1, roof.moved_bytes) for roof in roofs)),
        flops=round(geomean(max(1, roof.flops) for roof in roofs))
        if all(r.flops for r in roofs)
        else 0,
        fault_us=statistics.fmean(roof.fault_us for roof in roofs),
        measured=f"Means over {len(roofs)} workloads. {roofs[0].measured}",
        cold_gbps=_mean_of_all([roof.cold_gbps for roof in roofs]),
        product_gflops=_mean_of_all([roof.product_gflops for roof in roofs]),
    )


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """The geometric mean; None where one of them was not measured."""
    known = [value for value in values if value is not None]
    return geomean(known) if len(known) == len(values) else None
