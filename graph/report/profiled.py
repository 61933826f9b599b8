"""What instruments read of a trial, and what the profiler made of it, as the report shows it.

Names of kernels, lines of source and reasons come from programs: they are bounded here, and the
templates escape them.
"""

from typing import assert_never

from agents.brief import Diagnosis
from graph.report.words import clip, milliseconds, percent, times
from tools.verdict import (
    Compiled,
    CounterReadings,
    KernelCounters,
    KernelUse,
    Profile,
    Readings,
    ReportReadings,
    TimeReadings,
    Verdict,
)

# Kernels with a smaller share of the time are left out.
LEAST_SHARE = 0.01
COUNTERS_SHOWN = (
    ("gpu__time_duration.sum", "time", " ns"),
    ("sm__throughput.avg.pct_of_peak_sustained_elapsed", "SMs", "%"),
    ("gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed", "DRAM", "%"),
    ("sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed", "tensor cores", "%"),
    ("sm__warps_active.avg.pct_of_peak_sustained_active", "warps resident", "%"),
    ("launch__registers_per_thread", "registers", ""),
    ("lts__t_sector_hit_rate.pct", "L2 hits", "%"),
)

BOTTLENECKS = {
    "memory": "held back by memory traffic",
    "compute": "held back by its instructions",
    "latency": "held back by latency",
    "pages": "held back by page faults",
    "none": "at its bound",
}
CAUSES = {
    "": "",
    "bandwidth": "memory is as busy as it can be",
    "cache bandwidth": "the caches are as busy as they can be",
    "uncoalesced": "loads fetch more than they use",
    "spills": "registers are spilled",
    "arithmetic": "the arithmetic pipes are full",
    "no tensor cores": "tensor cores stand idle",
    "divergence": "warps split at branches",
    "launch": "kernels are too short to pay for their launch",
    "few blocks": "there are too few blocks",
    "occupancy": "few warps fit",
    "imbalance": "work is uneven",
    "stalls": "nothing hides the waiting",
    "library calls": "the library still does part of it",
}


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """What bounds a trial, in one sentence."""
    cause = CAUSES[diagnosis.cause]
    behind = f" ({cause})" if cause else ""
    held = BOTTLENECKS[diagnosis.bottleneck]
    return f"{held}{behind}, {times(diagnosis.headroom)} the bound's time."


def fraction(profile: Profile | None) -> str:
    """A trial's share of the roofline; empty where it was not timed."""
    if profile is None:
        return ""
    return percent(profile.roofline_fraction)


def uses(verdict: Verdict) -> list[tuple[str, str]]:
    """What each kernel takes of the device that it was compiled for."""
    return kernel_uses(verdict.kernels) if isinstance(verdict, Compiled) else []


def kernel_uses(kernels: tuple[KernelUse, ...]) -> list[tuple[str, str]]:
    """A compiler's report, a row a kernel."""
    found = []
    for kernel in kernels:
        told = [
            f"{kernel.registers} registers",
            f"{kernel.spilled_bytes} bytes spilled",
            f"{binary(kernel.shared_bytes)} shared",
        ]
        if kernel.threads:
            told.append(f"{kernel.threads} threads a block")
        if kernel.occupancy:
            told.append(f"{percent(kernel.occupancy)} of the warps resident")
        if kernel.tensor_core:
            told.append(f"{kernel.tensor_core} instructions for tensor cores")
        found.append((f"{clip(kernel.function)}, {kernel.architecture}", ", ".join(told)))
    return found


def figures(profile: Profile | None) -> list[tuple[str, str]]:
    """A profile's rows: the judge's figures, which instruments were read, and what they say."""
    if profile is None:
        return []
    return [
        ("Achieved", f"{profile.achieved_gbps:,.1f} GB/s, {profile.achieved_gflops:,.1f} GFLOP/s"),
        ("Roofline", f"{fraction(profile)}, {profile.bound}-bound"),
        (
            "Page faults",
            f"{profile.page_faults:,.0f} a call, {milliseconds(profile.page_fault_ms)}",
        ),
        ("Read by", profile.rung),
        *((f"No {one.rung}", clip(one.reason)) for one in profile.skipped),
        *_readings(profile.readings),
        *(("Note", clip(note)) for note in profile.notes),
    ]


def _readings(readings: Readings | None) -> list[tuple[str, str]]:
    """What the instrument read, a row a kernel."""
    match readings:
        case None:
            return []
        case CounterReadings():
            return [(clip(one.function), _counters(one)) for one in readings.kernels] + [
                (f"Line {spot.line}", f"{percent(spot.share)} of samples: {clip(spot.source)}")
                for spot in readings.hot_spots
            ]
        case TimeReadings():
            return _times(readings)
        case ReportReadings():
            return kernel_uses(readings.kernels)
        case _ as never:
            assert_never(never)


def _counters(kernel: KernelCounters) -> str:
    known = [
        (label, kernel.metrics[name], unit)
        for name, label, unit in COUNTERS_SHOWN
        if name in kernel.metrics
    ]
    told = [f"{label} {value:,.4g}{unit}" for label, value, unit in known]
    return ", ".join([f"{kernel.launches} profiled", *told])


def _times(readings: TimeReadings) -> list[tuple[str, str]]:
    rows = [
        (clip(one.name), f"{one.self_us:,.1f} µs a call of forward, {percent(one.share)}")
        for one in readings.kernels
        if one.share >= LEAST_SHARE
    ]
    if readings.copy_gbps:
        rows.append(("A copy reaches", f"{readings.copy_gbps:,.1f} GB/s in the same process"))
    counted = readings.counters
    if counted:
        rows.append(
            ("Counted", ", ".join(f"{name} {value:,.4g}" for name, value in counted.items()))
        )
    return rows


def binary(size: int) -> str:
    """Bytes in the units that caches are stated in."""
    return f"{size / 2**20:.4g} MiB" if size >= 2**20 else f"{size / 2**10:.4g} KiB"
