"""What the judge says of a candidate: a closed, tagged union, and the figures that go with it.

A new outcome is a new class here, and mypy then names every `match` that does not handle it. No
outcome is ever encoded as a number: only `Correct` can carry a `Timing`.
"""

from typing import Annotated, Literal

from pydantic import Field

from knowledge.opgraph import Frozen
from tools.candidate import Candidate


class Comparison(Frozen):
    """One baseline against the candidate, from interleaved (ABBA) blocks.

    `speedup` is the median over blocks of baseline time over candidate time; `low` and `high` bound
    it at 95% (bootstrap over blocks). Times are the judge's own wall clock around each call, in
    milliseconds.
    """

    baseline: str
    baseline_ms: float
    candidate_ms: float
    speedup: float
    low: float
    high: float
    blocks: int


class DeviceReading(Frozen):
    """What a GPU said of itself at one moment: clocks, temperature, power, why it is held back."""

    sm_mhz: float
    memory_mhz: float
    celsius: float
    watts: float
    throttled: tuple[str, ...] = ()


class Timing(Frozen):
    """How fast a correct candidate is.

    `noise` is this machine's own A/A ratio: how far from 1 the same code against itself may read
    (0.01 = 1%). A win is real only if the interval's lower end clears `1 + noise` against every
    baseline measured. Over several `workloads` the figures are geometric means of theirs.
    """

    candidate_ms: float
    comparisons: tuple[Comparison, ...]
    noise: float
    page_faults: float = Field(description="minor page faults per call, counted by the kernel")
    checked_outputs: int = Field(
        description="timed calls whose output was compared with the oracle afterwards"
    )
    device_ms: float | None = Field(
        None, description="by CUDA's events, the kernel's own word; None on a CPU"
    )
    readings: tuple[DeviceReading, ...] = Field(
        (), description="of the GPU, before and after; empty where nobody tells"
    )
    confirmed: bool = Field(False, description="measured again in a new runner with new seeds")
    stopped_early: bool = Field(
        False, description="let go at a checkpoint, wholly behind a faster candidate"
    )
    workloads: tuple["WorkloadTiming", ...] = Field(
        (), description="what the figures are means of, the first one leading; empty for one alone"
    )

    @property
    def lead(self) -> "Timing":
        """The leading workload's own figures, which go with the reference's facts."""
        return self.workloads[0].timing if self.workloads else self

    @property
    def against_best(self) -> Comparison:
        """The comparison with the strongest baseline: the one with the smallest speedup."""
        return min(self.comparisons, key=lambda comparison: comparison.speedup)

    @property
    def faster(self) -> bool:
        """Whether the win over the strongest baseline is outside the machine's noise."""
        return self.against_best.low > 1.0 + self.noise


class WorkloadTiming(Frozen):
    """How fast a candidate is on one of several workloads."""

    name: str
    timing: Timing


class CaseResult(Frozen):
    """One correctness case: the kind of input, and how far off the worst element was."""

    name: str
    passed: bool
    worst: float = Field(description="largest |y - y64| divided by what was allowed there")
    about: str = Field("", description="what is out of the ordinary, as agents may be told")
    shapes: tuple[tuple[int, ...], ...] = Field(
        (), description="of the input tensors, in a case whose shapes are not the task's own"
    )


class Hashes(Frozen):
    """SHA-256 of what was judged, against what, and by which judge: of the text of each."""

    source: str
    reference: str
    judge: str


class Outcome(Frozen):
    """What every verdict carries."""

    hashes: Hashes | None = Field(None, description="None only before the judge has signed it")
    isolation: str = Field("", description="the jail that was in force, e.g. 'unshare+rlimits'")
    labels: tuple[str, ...] = ()


class BuildFailed(Outcome):
    """The source does not parse, import or compile."""

    kind: Literal["build_failed"] = "build_failed"
    log: str = Field(description="what the compiler or importer printed, bounded")


class Crashed(Outcome):
    """The runner died or raised while it built the module or ran forward."""

    kind: Literal["crashed"] = "crashed"
    log: str


class TimedOut(Outcome):
    """A call took longer than the deadline, which is scaled to the reference's own time."""

    kind: Literal["timed_out"] = "timed_out"
    deadline_s: float


class WrongOutput(Outcome):
    """The values differ from the float64 oracle by more than the tolerance."""

    kind: Literal["wrong_output"] = "wrong_output"
    detail: str = Field(
        description="which output, how many elements, the worst one: never the hidden inputs"
    )
    cases: tuple[CaseResult, ...] = ()


class ContractBroken(Outcome):
    """Wrong number, shape, dtype or class of outputs, or an input was changed."""

    kind: Literal["contract_broken"] = "contract_broken"
    detail: str


class Cheated(Outcome):
    """A check that only a cheating kernel fails did fail."""

    kind: Literal["cheated"] = "cheated"
    check: str
    detail: str


class Implausible(Outcome):
    """Faster than the bytes it must move or the operations it must do allow."""

    kind: Literal["implausible"] = "implausible"
    candidate_ms: float
    floor_ms: float


class TimerMismatch(Outcome):
    """The runner's clock and the judge's disagree, or work was left for after the timed call."""

    kind: Literal["timer_mismatch"] = "timer_mismatch"
    detail: str


class Correct(Outcome):
    """Every case passed. `timing` is None where only correctness was asked for."""

    kind: Literal["correct"] = "correct"
    cases: tuple[CaseResult, ...] = ()
    deterministic: bool = True
    timing: Timing | None = None


class KernelUse(Frozen):
    """What one kernel takes of a device, by the compiler's own account.

    `threads` and `shared_bytes` are a block's, `occupancy` the share of a multiprocessor's warps
    that can be resident at once, 0 where the block's size is not known before a launch.
    `tensor_core` counts instructions for tensor cores.
    """

    function: str
    architecture: str
    registers: int
    stack_bytes: int
    spilled_bytes: int
    shared_bytes: int
    threads: int
    occupancy: float
    tensor_core: int = 0


class Compiled(Outcome):
    """It compiles for a device that was not there to run it: never a pass, never a speedup."""

    kind: Literal["compiled"] = "compiled"
    device: str
    kernels: tuple[KernelUse, ...] = ()
    logic: str = Field(description="how its logic was checked without the device, or why it wasn't")


class JudgeError(Outcome):
    """The judge's own machinery failed, twice: nothing about the candidate, and never a pass."""

    kind: Literal["judge_error"] = "judge_error"
    log: str


Verdict = Annotated[
    BuildFailed
    | Crashed
    | TimedOut
    | WrongOutput
    | ContractBroken
    | Cheated
    | Implausible
    | TimerMismatch
    | Correct
    | Compiled
    | JudgeError,
    Field(discriminator="kind"),
]


class SkippedRung(Frozen):
    """A better instrument that was not read, and why."""

    rung: str
    reason: str


class KernelCounters(Frozen):
    """One kernel under Nsight Compute, the mean of its profiled launches.

    `metrics` are by the tool's own names, in base units (bytes, nanoseconds, percent).
    """

    function: str
    launches: int
    block: str
    grid: str
    metrics: dict[str, float]


class HotSpot(Frozen):
    """A line of source where warps were found waiting; `share` is of all samples of its kernel."""

    function: str
    line: int
    source: str
    share: float


class KernelTime(Frozen):
    """One kernel or operator by name; `self_us` is a call's own time, without what it calls."""

    name: str
    calls: float = Field(description="for one forward")
    self_us: float = Field(description="for one forward, all calls together")
    share: float = Field(description="of the time of all kernels")


class CounterReadings(Frozen):
    """Read by Nsight Compute: hardware counters of each of the candidate's own kernels."""

    kind: Literal["counters"] = "counters"
    tool: str
    kernels: tuple[KernelCounters, ...]
    hot_spots: tuple[HotSpot, ...] = ()


class TimeReadings(Frozen):
    """Read by torch's profiler: the time of each kernel; on a CPU with the system's counters.

    `counters` are per forward, by the names of `perf stat`; where they are missing,
    `counters_refused` says why. `copy_gbps` is a copy of as many bytes as the op moves, measured in
    the same process, counting bytes read and written; 0 where it was not measured.
    """

    kind: Literal["times"] = "times"
    forward_us: float = Field(description="median of a forward by the process's own clock")
    kernels: tuple[KernelTime, ...]
    copy_gbps: float = 0.0
    counters: dict[str, float] = Field({})
    counters_refused: str = ""


class ReportReadings(Frozen):
    """Read off the compiler's report: what each kernel takes of the device. Nothing ran."""

    kind: Literal["report"] = "report"
    kernels: tuple[KernelUse, ...]


Readings = Annotated[CounterReadings | TimeReadings | ReportReadings, Field(discriminator="kind")]


class Profile(Frozen):
    """Where a correct candidate's time goes.

    `rung` names the best instrument that was read, `skipped` those above it and why. The figures
    are the judge's; `readings` are taken in the candidate's own process, and advise.
    """

    rung: str
    median_ms: float
    achieved_gbps: float
    achieved_gflops: float
    roofline_fraction: float = Field(
        description="roofline time over measured time, 1 = at the bound"
    )
    bound: Literal["memory", "compute"]
    page_faults: float
    page_fault_ms: float = Field(
        description="those faults times this machine's measured cost of one"
    )
    notes: tuple[str, ...] = ()
    skipped: tuple[SkippedRung, ...] = ()
    readings: Readings | None = None


class Trial(Frozen):
    """One judged candidate: an immutable fact of a run.

    `number` is its identity in the run (from 1); `plan` the plan's id; `parent` the trial it was
    made from; `repair` how many repairs preceded it within its attempt.
    """

    number: int
    plan: str
    pattern: str
    title: str
    parent: int | None
    repair: int
    candidate: Candidate
    verdict: Verdict
    profile: Profile | None = None
    seconds: float

    @property
    def timing(self) -> Timing | None:
        """How fast it is; None where it was rejected or not timed."""
        return self.verdict.timing if isinstance(self.verdict, Correct) else None

    @property
    def speedup(self) -> float | None:
        """Measured over the strongest baseline; None where it was rejected or not timed."""
        return None if self.timing is None else self.timing.against_best.speedup
