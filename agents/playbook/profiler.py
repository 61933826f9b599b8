"""The playbook's profiler: names one bottleneck of a timed trial, with its numbers."""

from typing import assert_never

from agents.brief import Brief, Diagnosis
from agents.playbook.instructions import spent_on
from agents.playbook.readings import Finding, read_counters, read_report, read_times
from tools.verdict import (
    Correct,
    CounterReadings,
    Profile,
    ReportReadings,
    TimeReadings,
    Timing,
    Trial,
)

AT_THE_ROOF = 1.05
PAGE_SHARE = 0.15
LAUNCH_MS = 0.02
# At this share of the bandwidth and more, arithmetic is hidden behind memory traffic.
MEMORY_BOUND = 0.8


class PlaybookProfiler:
    """Explains measurements by rule."""

    def explain(self, brief: Brief, trial: Trial) -> Diagnosis:
        """Which bound the trial is at.

        The judge's clock and the roofline are read first; what an instrument read refines it.

        Raises:
            ValueError: the trial was not timed, so there is nothing to explain.
        """
        verdict, profile = trial.verdict, trial.profile
        if not isinstance(verdict, Correct) or verdict.timing is None or profile is None:
            raise ValueError(f"trial {trial.number} has no timing to explain")
        bound_ms = profile.median_ms * profile.roofline_fraction
        headroom = 1.0 / profile.roofline_fraction
        evidence = [
            f"{profile.median_ms:.3f} ms against a roofline of {bound_ms:.3f} ms "
            f"({profile.roofline_fraction:.0%} of it)",
            f"{profile.achieved_gbps:.1f} of {brief.roofline.bandwidth_gbps:.1f} GB/s, "
            f"{profile.achieved_gflops:.1f} of {brief.roofline.peak_gflops:.0f} GFLOP/s",
        ]
        if brief.roofline.cold_gbps is not None:
            share = profile.achieved_gbps / brief.roofline.cold_gbps
            evidence.append(
                f"{share:.0%} of the {brief.roofline.cold_gbps:.1f} GB/s that memory gives of data "
                "that the caches have lost"
            )
        if brief.device.kind == "cpu":
            faults = f"{profile.page_faults:.0f} page faults a call"
            evidence.append(f"{faults}, worth {profile.page_fault_ms:.2f} ms")
        found = _refined(profile, _read(brief, profile, verdict.timing.lead, headroom))
        return Diagnosis(
            trial=trial.number,
            bottleneck=found.bottleneck,
            cause=found.cause,
            headroom=headroom,
            evidence=(*evidence, *found.evidence),
            moves=found.moves,
        )


def _refined(profile: Profile, found: Finding) -> Finding:
    """What the clock came to, with what the best instrument read."""
    match profile.readings:
        case None:
            return found
        case CounterReadings() as counted:
            read = read_counters(counted, profile.bound)
            return found._replace(evidence=read.evidence) if found.bottleneck == "none" else read
        case TimeReadings() as timed:
            return read_times(timed, profile.achieved_gbps, found)
        case ReportReadings() as report:
            return read_report(report.kernels, found)
        case _ as never:
            assert_never(never)


def _read(brief: Brief, profile: Profile, timing: Timing, headroom: float) -> Finding:
    """The rules that need no instrument, most telling first."""
    if headroom < AT_THE_ROOF:
        return Finding("none", "", (), ())
    if profile.page_fault_ms > PAGE_SHARE * profile.median_ms:
        moves: tuple[str, ...] = ("put the outputs on huge pages before they are first touched",)
        return Finding("pages", "", (), moves)
    if timing.candidate_ms < LAUNCH_MS:
        moves = ("fewer calls: one kernel for the whole op", "do without threads at this size")
        return Finding("latency", "", (), moves)
    cold = brief.roofline.cold_gbps
    starved = cold is not None and profile.achieved_gbps > MEMORY_BOUND * cold
    if profile.bound == "memory" and (headroom < 1.0 / MEMORY_BOUND or starved):
        moves = ("move fewer bytes: fuse what still goes through memory",)
        return Finding("memory", "", (), moves)
    if brief.device.kind == "cpu":
        return spent_on(brief.facts.graph, brief.roofline, profile.median_ms)
    return Finding("compute", "", (), ("fewer instructions: hoist, unroll", "cheaper operations"))
