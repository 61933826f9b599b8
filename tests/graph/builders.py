"""Run records for tests, whose bytes, times, speedups and fractions agree with one another."""

from agents.brief import Citation, Diagnosis, Plan
from graph.record import Repair, RunRecord
from knowledge.device import Device
from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec
from knowledge.pattern import Refusal, Step
from tools.candidate import Candidate
from tools.facts import Baseline, Baselines, ReferenceFacts, Roofline
from tools.task import InputSpec, Task
from tools.verdict import (
    BuildFailed,
    CaseResult,
    Cheated,
    Comparison,
    Compiled,
    ContractBroken,
    Correct,
    Crashed,
    Implausible,
    JudgeError,
    KernelUse,
    Profile,
    TimedOut,
    TimerMismatch,
    Timing,
    Trial,
    Verdict,
    WrongOutput,
)

ROWS, COLUMNS = 2048, 4096
SPEC = TensorSpec(shape=(ROWS, COLUMNS), dtype="float32", strides=(COLUMNS, 1))
EAGER_MS, COMPILE_MS = 12.3, 9.64
ISOLATION = "own user, no network, rlimits, scrubbed environment"

REFERENCE = """\
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x * 0.125, dim=-1)


def get_inputs():
    return [torch.randn(2048, 4096)]


def get_init_inputs():
    return []
"""

KERNEL = '''\
"""Softmax of scaled rows, in two sweeps of each row while it lies in L1."""

import torch
from kernelwright_loader import cpp_kernel

SOURCE = r"""
#include <cmath>
#include <cstdint>

extern "C" void scaled_softmax(const float* __restrict__ x, float* __restrict__ y,
                               int64_t rows, int64_t columns) {
    #pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const float* in = x + row * columns;
        float* out = y + row * columns;
        float largest = -INFINITY, sum = 0.0f;
        #pragma omp simd reduction(max : largest)
        for (int64_t i = 0; i < columns; ++i) largest = fmaxf(largest, in[i] * 0.125f);
        #pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < columns; ++i) sum += out[i] = expf(in[i] * 0.125f - largest);
        const float scale = 1.0f / sum;  // one division a row, not one an element
        for (int64_t i = 0; i < columns; ++i) out[i] *= scale;
    }
}
"""

kernel = cpp_kernel(SOURCE, "scaled_softmax", "ppii")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        x = x.contiguous()
        y = torch.empty_like(x)
        kernel(x.data_ptr(), y.data_ptr(), x.numel() // x.shape[-1], x.shape[-1])
        return y
'''

CASES = tuple(
    CaseResult(name=name, passed=True, worst=worst)
    for name, worst in (
        ("normal", 0.21),
        ("shifted by 100", 0.24),
        ("huge", 0.18),
        ("tiny", 0.11),
        ("constant rows", 0.04),
        ("one row", 0.19),
        ("4097 columns", 0.22),
        ("transposed layout", 0.21),
    )
)


def comparison(
    baseline: str, baseline_ms: float, candidate_ms: float, spread: float = 0.02
) -> Comparison:
    speedup = baseline_ms / candidate_ms
    return Comparison(
        baseline=baseline,
        baseline_ms=baseline_ms,
        candidate_ms=candidate_ms,
        speedup=speedup,
        low=speedup * (1 - spread),
        high=speedup * (1 + spread),
        blocks=15,
    )


def timing(
    candidate_ms: float,
    *,
    eager_ms: float = EAGER_MS,
    compile_ms: float | None = COMPILE_MS,
    spread: float = 0.02,
    confirmed: bool = False,
) -> Timing:
    baselines = {"eager": eager_ms} | ({"compile": compile_ms} if compile_ms is not None else {})
    return Timing(
        candidate_ms=candidate_ms,
        comparisons=tuple(
            comparison(name, ms, candidate_ms, spread) for name, ms in baselines.items()
        ),
        noise=0.012,
        page_faults=8192.0,
        checked_outputs=24,
        confirmed=confirmed,
    )


def correct(figures: Timing | None, labels: tuple[str, ...] = ()) -> Correct:
    return Correct(isolation=ISOLATION, cases=CASES, timing=figures, labels=labels)


def device() -> Device:
    return Device(
        name="test-cpu-2c",
        title="Test CPU, 2 cores",
        kind="cpu",
        architecture="x86-64 avx512",
        cores=2,
        memory_gib=24.0,
        caches={"l1d": 49152, "l2": 2097152, "l3": 110100480},
        vector_bits=512,
        features=("avx2", "avx512f", "thp-madvise"),
    )


def graph() -> OpGraph:
    return OpGraph(
        nodes=(
            Node(name="x", kind="input", target="0", result=SPEC),
            Node(
                name="mul",
                kind="call",
                target="aten.mul.Tensor",
                args=(Ref(ref="x"), 0.125),
                result=SPEC,
            ),
            Node(
                name="softmax",
                kind="call",
                target="aten.softmax.int",
                args=(Ref(ref="mul"), -1),
                result=SPEC,
            ),
        ),
        outputs=(Ref(ref="softmax"),),
    )


def roofline() -> Roofline:
    return Roofline(
        bandwidth_gbps=19.4,
        peak_gflops=118.0,
        moved_bytes=2 * SPEC.nbytes,
        flops=6 * SPEC.numel,
        fault_us=0.21,
        measured="a triad over 128 MB on every core, and fused multiply-adds in registers",
    )


def facts(cautions: tuple[str, ...] = ()) -> ReferenceFacts:
    return ReferenceFacts(
        source=REFERENCE,
        digest="9f2c" * 16,
        graph=graph(),
        inputs=(SPEC,),
        outputs=(SPEC,),
        flops=roofline().flops,
        moved_bytes=roofline().moved_bytes,
        cautions=cautions,
    )


def baselines(*, compiled: bool = True) -> Baselines:
    compile_row = (
        Baseline(name="compile", median_ms=COMPILE_MS)
        if compiled
        else Baseline(name="compile", median_ms=None, failed="the op has a data-dependent branch")
    )
    return Baselines(rows=(Baseline(name="eager", median_ms=EAGER_MS), compile_row), noise=0.012)


def profile(candidate_ms: float) -> Profile:
    roof = roofline()
    return Profile(
        rung="wall clock and page-fault counter, with the analytic roofline",
        median_ms=candidate_ms,
        achieved_gbps=roof.moved_bytes / candidate_ms / 1e6,
        achieved_gflops=roof.flops / candidate_ms / 1e6,
        roofline_fraction=roof.floor_ms / candidate_ms,
        bound="memory",
        page_faults=8192.0,
        page_fault_ms=8192 * roof.fault_us / 1e3,
    )


def plan(number: int, title: str, *patterns: str) -> Plan:
    return Plan(
        id=f"plan-{number}",
        title=title,
        steps=tuple(
            Step(pattern=name, parameters={"sweeps": 2} if name == "row_loop" else {})
            for name in patterns
        ),
        expected_speedup=2.4,
        arithmetic="Eager moves 4 × 33.6 MB in two kernels; one sweep moves 67.1 MB: 3.46 ms.",
        citations=(
            Citation(
                source="patterns/row_loop/notes.md",
                title="Fused row loop",
                passage="When a row fits in L1, a second sweep over it costs no memory traffic.",
                score=0.83,
            ),
            Citation(
                source="docs/cpu/pages.md",
                title="What a fresh page costs",
                passage="The first touch of each 4 KiB page enters the operating system.",
                score=0.61,
            ),
        ),
    )


def trial(
    number: int,
    verdict: Verdict,
    *,
    plan: str = "plan-1",
    title: str = "One fused loop over rows",
    parent: int | None = None,
    repair: int = 0,
    source: str = KERNEL,
) -> Trial:
    timed = verdict.timing if isinstance(verdict, Correct) else None
    return Trial(
        number=number,
        plan=plan,
        pattern="row_loop",
        title=title,
        parent=parent,
        repair=repair,
        candidate=Candidate(source=source, backend="cpp"),
        verdict=verdict,
        profile=profile(timed.candidate_ms) if timed else None,
        seconds=4.2,
    )


def every_verdict() -> tuple[Verdict, ...]:
    return (
        BuildFailed(log="kernel.cpp:7:31: error: 'expff' was not declared in this scope"),
        Crashed(log="the runner died of signal 11 (SIGSEGV) in case 4097 columns"),
        TimedOut(deadline_s=2.5),
        WrongOutput(
            detail="output 0: 4096 of 8388608 elements differ; the worst by 131 tolerances",
            cases=(
                CaseResult(name="normal", passed=True, worst=0.2),
                CaseResult(name="huge", passed=False, worst=131.0),
            ),
        ),
        ContractBroken(detail="output 0 is float64, the reference returns float32"),
        Cheated(check="fresh inputs", detail="the output of the previous call was returned again"),
        Implausible(candidate_ms=0.0004, floor_ms=3.46),
        TimerMismatch(detail="the judge's clock read 9.1 ms, the runner's 0.3 ms"),
        correct(timing(10.4)),
        Compiled(
            device="h200-sxm",
            kernels=(
                KernelUse(
                    function="softmax_kernel",
                    architecture="sm_90",
                    registers=40,
                    stack_bytes=0,
                    spilled_bytes=0,
                    shared_bytes=512,
                    threads=128,
                    occupancy=0.75,
                    tensor_core=0,
                ),
            ),
            logic="in Triton's interpreter, on small inputs, its outputs agree with float64",
        ),
        JudgeError(log="the oracle's process was killed for want of memory, twice"),
    )


def record(
    trials: tuple[Trial, ...] = (),
    *,
    winner: int | None = None,
    confirmation: Correct | None = None,
    compiled: bool = True,
    ended: str = "nothing worth trying is left",
    cautions: tuple[str, ...] = (),
) -> RunRecord:
    best = [t.number for t in trials if isinstance(t.verdict, Correct)]
    return RunRecord(
        run_id="20261120-193000-softmax-1a2b",
        run_dir="runs/20261120-193000-softmax-1a2b",
        started="2026-11-20T19:30:00+00:00",
        versions={"kernelwright": "0.1.0", "torch": "2.13.0", "g++": "12.2.0"},
        task=Task(name="softmax", op="torch.softmax", inputs=(InputSpec(shape=(ROWS, COLUMNS)),)),
        device=device(),
        facts=facts(cautions),
        baselines=baselines(compiled=compiled),
        roofline=roofline(),
        plans=(
            plan(1, "One fused loop over rows", "row_loop"),
            plan(2, "Fused rows, output on huge pages", "row_loop", "output_pages"),
        ),
        refused=(
            Refusal(pattern="matmul_sum", reason="There is no matrix product followed by a sum."),
        ),
        trials=trials,
        diagnoses=tuple(
            Diagnosis(
                trial=number,
                bottleneck="pages",
                headroom=1.9,
                moves=("put the output on huge pages",),
                evidence=("8,192 page faults a call cost 1.72 ms of 6.20 ms",),
            )
            for number in best[:1]
        ),
        repairs=(Repair(failed_trial=2, action="Gave the remainder loop its own bound."),)
        if len(trials) > 2
        else (),
        winner=winner,
        confirmation=confirmation,
        ended=ended,
        seconds=94.0,
    )


def a_win() -> RunRecord:
    """Six trials, two of them rejected; the last one wins and is confirmed."""
    wrong = every_verdict()[3]
    trials = (
        trial(1, correct(timing(6.2, spread=0.03))),
        trial(2, wrong, plan="plan-2", title="Fused rows, output on huge pages", parent=1),
        trial(
            3,
            correct(timing(4.31)),
            plan="plan-2",
            title="Fused rows, output on huge pages",
            parent=1,
            repair=1,
        ),
        trial(
            4,
            BuildFailed(log="kernel.cpp:3: error: expected ';'"),
            title="Fused rows, 3 sweeps",
            parent=3,
        ),
        trial(5, correct(timing(9.9, spread=0.05)), title="Fused rows, one thread", parent=3),
        trial(
            6,
            correct(timing(4.17)),
            plan="plan-2",
            title="Fused rows, online maximum, huge pages",
            parent=3,
        ),
    )
    return record(
        trials, winner=6, confirmation=correct(timing(4.19, spread=0.018, confirmed=True))
    )


def nothing_faster() -> RunRecord:
    """Two correct trials, both behind torch.compile."""
    trials = (trial(1, correct(timing(10.1))), trial(2, correct(timing(9.82))))
    return record(trials, winner=2, confirmation=correct(timing(9.9, confirmed=True)))


def all_failed() -> RunRecord:
    """A run whose every candidate was rejected, one for each way to be rejected."""
    rejected = [
        verdict for verdict in every_verdict() if not isinstance(verdict, Correct | Compiled)
    ]
    return record(
        tuple(
            trial(number, verdict, repair=number % 2) for number, verdict in enumerate(rejected, 1)
        ),
        ended="the budget of 9 trials is spent",
    )


def one_of_each() -> RunRecord:
    """A trial for each kind of verdict there is; the correct one wins nothing."""
    return record(
        tuple(trial(number, verdict) for number, verdict in enumerate(every_verdict(), 1))
    )
