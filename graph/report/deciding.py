"""Which metric decides how fast the kernel is: its share of each of the machine's limits.

The judge's figures come first, and which of them decided is what the profiler's diagnosis says.
"""

from typing import NamedTuple

from agents.brief import Bottleneck, Cause, Diagnosis
from graph.record import RunRecord
from graph.report.kin import Bases, lineage
from graph.report.profiled import BOTTLENECKS, CAUSES
from graph.report.story import leader_of
from graph.report.words import clip, milliseconds, percent, quantity, times
from tools.verdict import CounterReadings, Profile, Trial

MOST_COLUMNS = 4
BANDWIDTH, ARITHMETIC, FAULTS, ROOF = (
    "Memory bandwidth", "Arithmetic", "Page faults", "Of the roofline"
)  # fmt: skip
# The row of the judge's figures that a bottleneck is read off.
DECIDED_BY: dict[Bottleneck, str] = {
    "memory": BANDWIDTH, "compute": ARITHMETIC, "pages": FAULTS, "latency": "Time", "none": ROOF
}  # fmt: skip
# Where counters were read, the one that a cause is read off, as Nsight Compute names it.
COUNTER_OF: dict[Cause, tuple[str, str]] = {
    "bandwidth": ("gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed", "DRAM busy"),
    "cache bandwidth": ("lts__t_sector_hit_rate.pct", "L2 hits"),
    "arithmetic": ("sm__throughput.avg.pct_of_peak_sustained_elapsed", "Multiprocessors busy"),
    "no tensor cores": (
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed", "Tensor cores busy",
    ),
    "imbalance": ("sm__warps_active.avg.pct_of_peak_sustained_active", "Warps resident"),
    "occupancy": ("sm__warps_active.avg.pct_of_peak_sustained_active", "Warps resident"),
}  # fmt: skip


class Gauge(NamedTuple):
    """A metric as a share of its limit; `share` is in percent, None where there is no limit."""

    name: str
    value: str
    limit: str
    share: float | None
    decided: bool


class Deciding(NamedTuple):
    """The profile of the kernel that matters most, and what in it decides.

    `where` names the workload that was profiled, where there are several.
    """

    trial: Trial
    where: str
    gauges: list[Gauge]
    sentence: str
    evidence: tuple[str, ...]
    moves: tuple[str, ...]
    instrument: str
    journey: "Journey | None"


class Journey(NamedTuple):
    """The same metrics from trial to trial, on the way to the last: what moved, and what decided.

    Each row is a metric, its values by trial, and whether it is the one that decided.
    """

    trials: list[int]
    rows: list[tuple[str, list[str], bool]]


def deciding(record: RunRecord, bases: Bases) -> Deciding | None:
    """What decides the speed of the winner, or of the fastest trial; None where none was timed."""
    number = leader_of(record)
    trial = record.trial(number) if number is not None else None
    if trial is None or trial.profile is None:
        return None
    read = next((one for one in record.diagnoses if one.trial == trial.number), None)
    return Deciding(
        trial=trial,
        where=clip(record.workloads[0].name) if record.workloads else "",
        gauges=_gauges(record, trial.profile, read),
        sentence=_sentence(read, trial.profile),
        evidence=read.evidence if read else (),
        moves=read.moves if read else (),
        instrument=trial.profile.rung,
        journey=_journey(record, bases, trial, read),
    )


def _sentence(read: Diagnosis | None, profile: Profile) -> str:
    if read is None:
        return "Nobody explained this measurement."
    held, cause = BOTTLENECKS[read.bottleneck], CAUSES[read.cause]
    behind = f": {cause}" if cause else ""
    if profile.roofline_fraction >= 1:
        return f"It is {held}{behind}."
    return (
        f"It is {held}{behind}. It takes {times(read.headroom)} the time that the roofline allows."
    )


def _gauges(record: RunRecord, profile: Profile, read: Diagnosis | None) -> list[Gauge]:
    # Profiled is the leading workload alone; a record's own roofline is the mean of all.
    leading = record.workloads[0].roofline if record.workloads else None
    roof = leading or record.roofline
    decided = DECIDED_BY[read.bottleneck] if read else ""
    rows: list[tuple[str, str, str, float | None]] = [
        ("Time", milliseconds(profile.median_ms), "", None),
        (
            BANDWIDTH,
            f"{quantity(profile.achieved_gbps)} GB/s",
            f"of {quantity(roof.bandwidth_gbps)} GB/s",
            profile.achieved_gbps / roof.bandwidth_gbps,
        ),
        (
            ARITHMETIC,
            f"{quantity(profile.achieved_gflops)} GFLOP/s",
            f"of {quantity(roof.peak_gflops)} GFLOP/s",
            profile.achieved_gflops / roof.peak_gflops,
        ),
    ]
    if record.device.kind == "cpu":
        cost = f"{milliseconds(profile.page_fault_ms)} of {milliseconds(profile.median_ms)}"
        share = profile.page_fault_ms / profile.median_ms
        rows.append((FAULTS, f"{profile.page_faults:,.0f} a call", cost, share))
    rows.append((ROOF, percent(profile.roofline_fraction), f"{profile.bound}-bound",
                 profile.roofline_fraction))  # fmt: skip
    if counted := _counted(profile, read):
        rows += counted
        decided = counted[0][0]
    return [
        Gauge(
            name, value, limit, None if share is None else min(100.0, 100 * share), name == decided
        )
        for name, value, limit, share in rows
    ]


def _counted(profile: Profile, read: Diagnosis | None) -> list[tuple[str, str, str, float | None]]:
    """The hardware counter that showed the cause, of the kernel that took most of the time."""
    if read is None or not isinstance(profile.readings, CounterReadings):
        return []
    metric, name = COUNTER_OF.get(read.cause, ("", ""))
    for kernel in profile.readings.kernels[:1]:
        if metric in kernel.metrics:
            value = kernel.metrics[metric]
            return [(name, f"{value:.0f}%", f"in {kernel.function}", value / 100)]
    return []


def _journey(
    record: RunRecord, bases: Bases, last: Trial, read: Diagnosis | None
) -> Journey | None:
    way = [record.trial(number) for number in lineage(bases, last.number)]
    seen = [(trial, trial.profile) for trial in way if trial.profile is not None]
    if len(seen) < 2:
        return None
    shown = seen[-MOST_COLUMNS:]
    decided, on_cpu = DECIDED_BY[read.bottleneck] if read else "", record.device.kind == "cpu"
    rows = [
        ("Time", [milliseconds(profile.median_ms) for _, profile in shown]),
        (BANDWIDTH, [f"{quantity(profile.achieved_gbps)} GB/s" for _, profile in shown]),
        (ARITHMETIC, [f"{quantity(profile.achieved_gflops)} GFLOP/s" for _, profile in shown]),
        *([(FAULTS, [f"{p.page_faults:,.0f}" for _, p in shown])] if on_cpu else []),
        (ROOF, [percent(profile.roofline_fraction) for _, profile in shown]),
    ]
    return Journey(
        trials=[trial.number for trial, _ in shown],
        rows=[(name, values, name == decided) for name, values in rows],
    )
