"""A task of several workloads in the record of its run: what was measured on each."""

from collections.abc import Sequence

from pydantic import Field

from knowledge.opgraph import Frozen, TensorSpec
from tools.facts import Baselines, Roofline, WorkloadFacts
from tools.verdict import Timing


class WorkloadResult(Frozen):
    """One workload: its inputs, its baselines at the start, and the kernel's figures if any.

    Times are in milliseconds; the speedup is over the workload's own fastest baseline, with its 95%
    interval, and `faster` says whether that clears 1 by the workload's noise.
    """

    name: str
    source: str = Field("", description="the reference's text there; empty in records of before")
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    baselines: Baselines
    roofline_ms: float
    roofline: Roofline | None = Field(None, description="None in records of before")
    baseline: str | None = None
    baseline_ms: float | None = None
    kernel_ms: float | None = None
    speedup: float | None = None
    interval: tuple[float, float] | None = Field(None, description="95%, low and high")
    faster: bool | None = None
    roofline_fraction: float | None = None

    @property
    def sizes(self) -> str:
        """Its inputs in short, e.g. `64x4096 float32`."""
        return ", ".join(
            f"{'x'.join(map(str, spec.shape)) or 'scalar'} {spec.dtype}" for spec in self.inputs
        )


def results_of(
    workloads: Sequence[WorkloadFacts], timing: Timing | None
) -> tuple[WorkloadResult, ...]:
    """One result a workload, in the task's order; the timing is the confirmed one, if any."""
    timings = {one.name: one.timing for one in timing.workloads} if timing is not None else {}
    return tuple(_result(one, timings.get(one.name)) for one in workloads)


def _result(workload: WorkloadFacts, timing: Timing | None) -> WorkloadResult:
    found = WorkloadResult(
        name=workload.name,
        source=workload.facts.source,
        inputs=workload.facts.inputs,
        outputs=workload.facts.outputs,
        baselines=workload.baselines,
        roofline_ms=workload.roofline.floor_ms,
        roofline=workload.roofline,
    )
    if timing is None:
        return found
    best = timing.against_best
    return found.model_copy(
        update={
            "baseline": best.baseline,
            "baseline_ms": best.baseline_ms,
            "kernel_ms": timing.candidate_ms,
            "speedup": best.speedup,
            "interval": (best.low, best.high),
            "faster": timing.faster,
            "roofline_fraction": workload.roofline.fraction(timing.candidate_ms),
        }
    )
