"""What is learned before anyone writes a kernel: facts, baselines, roofline."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from knowledge.opgraph import Frozen, OpGraph, TensorSpec
from knowledge.parts import Part

# What the judge cautions of where a verdict, or a time, says nothing: a wrong kernel would pass, or
# a right one has nothing to compute.
BLIND = "the judge cannot tell right from wrong on this task: {what} would pass"
CONSTANT = "the output does not depend on the input"
_BLIND_START = BLIND.partition("{")[0]


def is_blind(caution: str) -> bool:
    """Whether a caution says that a wrong kernel would pass."""
    return caution.startswith(_BLIND_START)


def telling_nothing(cautions: Iterable[str]) -> str:
    """The caution that makes any speed on a task meaningless; empty where there is none.

    A judge of several workloads puts a workload's name before it.
    """
    return next((one for one in cautions if CONSTANT in one or _BLIND_START in one), "")


# A caution, and what the drop-in goes by.
MUTATES = "the reference changes its own inputs, so every call gets a private copy of them"


class ReferenceFacts(Frozen):
    """The reference as the judge sees it.

    `source` is the file in the field's convention, generated where the task names an operator.
    `flops` counts multiply-adds as two (torch's FlopCounterMode plus one per pointwise element).
    `moved_bytes` is the least traffic: each input and weight that is read, and each output, once.
    """

    source: str
    digest: str
    graph: OpGraph | None = Field(
        description="None where the op cannot be traced; then `untraceable` says why"
    )
    untraceable: str = ""
    parts: tuple[Part, ...] = Field(
        (), description="modules that have a graph of their own, where the op has none"
    )
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    flops: int
    moved_bytes: int
    call_ms: dict[str, float] = Field(
        {}, description="what each call of the graph takes in eager; empty where it wasn't measured"
    )
    cautions: tuple[str, ...] = Field(
        (), description="e.g. the output does not depend on the input"
    )


# `cudagraphs`: max-autotune, its launches recorded into CUDA graphs.
BaselineName = Literal["eager", "compile", "max-autotune", "cudagraphs", "fastest"]


class Baseline(Frozen):
    """One way of running the reference unchanged; `failed` says why it could not be measured.

    `fastest` is the mean over several workloads of whichever is the fastest on each.
    """

    name: BaselineName
    median_ms: float | None
    failed: str = ""


class Baselines(Frozen):
    """All baselines, measured interleaved, and the machine's A/A noise from eager against eager."""

    rows: tuple[Baseline, ...]
    noise: float

    @property
    def best(self) -> Baseline | None:
        """The fastest that could be measured; None where none could, as for an absent device."""
        return min(
            (row for row in self.rows if row.median_ms is not None),
            key=lambda row: row.median_ms or 0.0,
            default=None,
        )


class Roofline(Frozen):
    """The bound on this op's time on this machine.

    `bandwidth_gbps` and `peak_gflops` are measured on the machine, at a footprint like the op's;
    `floor_ms` = max(moved_bytes / bandwidth, flops / peak), of the op as written. `fault_us` is
    what one minor page fault adds to the wall time while all threads fault. `cold_gbps` is what
    memory gives, in the median, of data that the caches have lost since it was last used; no bound,
    since another call may find it there. `product_gflops` is what torch's own products reach, where
    the peak is another library's. None where they aren't measured.
    """

    bandwidth_gbps: float
    peak_gflops: float
    moved_bytes: int
    flops: int
    fault_us: float
    measured: str = Field(description="how the two ceilings were obtained, in words")
    cold_gbps: float | None = None
    product_gflops: float | None = None

    @property
    def memory_ms(self) -> float:
        """Time to move the bytes at full bandwidth."""
        return self.moved_bytes / (self.bandwidth_gbps * 1e6)

    @property
    def compute_ms(self) -> float:
        """Time to do the operations at peak."""
        return self.flops / (self.peak_gflops * 1e6)

    @property
    def floor_ms(self) -> float:
        """The larger of the two."""
        return max(self.memory_ms, self.compute_ms)

    @property
    def bound(self) -> Literal["memory", "compute"]:
        """Which of the two it is."""
        return "memory" if self.memory_ms >= self.compute_ms else "compute"

    def bound_at(self, measured_ms: float) -> Literal["memory", "compute"]:
        """Which bound a measured time is held against.

        `flops` counts the op as written. A kernel faster than those operations allow has rewritten
        them away, and then memory is the only bound that is known.
        """
        return "memory" if measured_ms < self.compute_ms else self.bound

    def fraction(self, measured_ms: float) -> float:
        """The time of the bound that applies over the measured time; 1 = at the bound."""
        bound_ms = self.memory_ms if self.bound_at(measured_ms) == "memory" else self.compute_ms
        return bound_ms / measured_ms


class WorkloadFacts(Frozen):
    """What is learned of one of several workloads before anyone writes a kernel."""

    name: str
    facts: ReferenceFacts
    baselines: Baselines
    roofline: Roofline
