"""The playbook's profiler: names one bottleneck of a timed trial, with its numbers."""

from typing import Literal

from agents.brief import Brief, Diagnosis
from tools.verdict import Correct, Profile, Timing, Trial

AT_THE_ROOF = 1.05
PAGE_SHARE = 0.15
LAUNCH_MS = 0.02
# At this share of the bandwidth and more, arithmetic is hidden behind memory traffic.
MEMORY_BOUND = 0.8

Bottleneck = Literal["memory", "compute", "latency", "pages", "none"]


class PlaybookProfiler:
    """Explains measurements by rule."""

    def explain(self, brief: Brief, trial: Trial) -> Diagnosis:
        """Which bound the trial is at.

        Raises:
            ValueError: the trial was not timed, so there is nothing to explain.
        """
        verdict, profile = trial.verdict, trial.profile
        if not isinstance(verdict, Correct) or verdict.timing is None or profile is None:
            raise ValueError(f"trial {trial.number} has no timing to explain")
        bound_ms = profile.median_ms * profile.roofline_fraction
        headroom = 1.0 / profile.roofline_fraction
        evidence = (
            f"{profile.median_ms:.3f} ms against a roofline of {bound_ms:.3f} ms "
            f"({profile.roofline_fraction:.0%} of it)",
            f"{profile.achieved_gbps:.1f} of {brief.roofline.bandwidth_gbps:.1f} GB/s, "
            f"{profile.achieved_gflops:.1f} of {brief.roofline.peak_gflops:.0f} GFLOP/s",
            f"{profile.page_faults:.0f} page faults a call, worth {profile.page_fault_ms:.2f} ms",
        )
        bottleneck, moves = _read(profile, verdict.timing, headroom)
        return Diagnosis(
            trial=trial.number,
            bottleneck=bottleneck,
            headroom=headroom,
            evidence=evidence,
            moves=moves,
        )


def _read(profile: Profile, timing: Timing, headroom: float) -> tuple[Bottleneck, tuple[str, ...]]:
    """The rules, most telling first."""
    if headroom < AT_THE_ROOF:
        return "none", ()
    if profile.page_fault_ms > PAGE_SHARE * profile.median_ms:
        return "pages", ("put the outputs on huge pages before they are first touched",)
    if timing.candidate_ms < LAUNCH_MS:
        return "latency", (
            "fewer calls: one kernel for the whole op",
            "do without threads at this size",
        )
    if profile.bound == "memory" and headroom < 1.0 / MEMORY_BOUND:
        return "memory", ("move fewer bytes: fuse what still goes through memory",)
    return "compute", (
        "cheaper transcendental functions (inline polynomials)",
        "fewer sweeps over the row",
        "more independent accumulators",
    )
