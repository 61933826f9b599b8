"""Rules over an instrument's readings: one bottleneck, what causes it, its numbers, and moves.

Thresholds are Nsight Compute's own where it has a rule (its documentation, "Rules" and "GPU Speed
Of Light"), and those of `knowledge/docs/profile` elsewhere; each says which.
"""

from typing import NamedTuple

from agents.brief import Bottleneck, Cause
from tools.verdict import CounterReadings, KernelCounters, KernelUse, TimeReadings

# Speed Of Light rules: at 80% of a peak a kernel is bound by it; under 60% of both it waits.
BOUND, WAITING = 80.0, 60.0
# A tensor pipe that is busy less than this does no product to speak of.
TENSOR_IDLE = 5.0
# Of each 32-byte sector that is loaded; half of it unused is the rule "Uncoalesced Global Access".
COALESCED = 60.0
# A warp of 128-bit loads, the widest there are, takes 16 sectors: more can't be needed.
SECTORS = 16.0
# Spilled registers come back as local loads and stores; docs/profile/register-spills.
SPILLED = 0.02
# docs/profile/launch-bound-timeline: so short a kernel is mostly launch, ramp and tail.
LAUNCH_NS = 10_000.0
# Rule "Theoretical Occupancy": fewer resident warps than this hide little latency.
OCCUPIED = 50.0
# Rule "Achieved Occupancy": so much below the theoretical one, blocks are uneven.
UNEVEN = 0.8
# Of active warps; docs/profile/stall-long-scoreboard.
STALLED = 30.0
# docs/cuda/divergence: below this share of uniform branches, warps split.
UNIFORM = 95.0
# docs/profile/perf-stat: instructions a cycle; below it the processor waits.
IDLE_IPC = 0.7
# Of a copy's bandwidth; docs/profile/copy-bandwidth.
COPY_SHARE = 0.8
# So much of the time in the library's own operators is worth fusing away.
LIBRARY_SHARE = 0.3

DURATION = "gpu__time_duration.sum"
SM = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
MEMORY = "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed"
DRAM = "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed"
TENSOR = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed"
BYTES_PER_SECTOR = "smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.pct"
SECTORS_PER_REQUEST = "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio"
ACHIEVED = "sm__warps_active.avg.pct_of_peak_sustained_active"
THEORETICAL = "sm__maximum_warps_per_active_cycle_pct"
WAVES = "launch__waves_per_multiprocessor"
UNIFORM_BRANCHES = "smsp__sass_average_branch_targets_threads_uniform.pct"
LIMITS = ("blocks", "registers", "shared_mem", "warps")
STALL_PREFIX, STALL_SUFFIX = "smsp__warp_issue_stalled_", "_per_warp_active.pct"
_STALL_MOVES = {
    "long_scoreboard": ("more independent loads in flight: unroll, wider loads, more stages",
                        "more resident warps"),
    "short_scoreboard": ("fewer bank conflicts: pad or swizzle shared memory",
                         "reduce by shuffles before shared memory"),
    "barrier": ("fewer barriers: several tiles between two of them", "smaller blocks"),
    "branch_resolving": ("selects instead of branches",),
    "no_instruction": ("a smaller loop body: unroll less",),
    "not_selected": ("fewer warps with more work each",),
    "math_pipe_throttle": ("cheaper operations on the pipe that is full",),
    "lg_throttle": ("wider loads: fewer, larger requests",),
    "mio_throttle": ("fewer shared-memory instructions: wider ones, registers instead",),
    "wait": ("more independent instructions: several accumulators",),
}  # fmt: skip


class Finding(NamedTuple):
    """What an instrument's readings come to; `moves` are best first, at most three."""

    bottleneck: Bottleneck
    cause: Cause
    evidence: tuple[str, ...]
    moves: tuple[str, ...]


def read_counters(readings: CounterReadings, bound: str) -> Finding:
    """What hardware counters say of the kernel that takes most time.

    Args:
        readings: of at least one kernel.
        bound: which of the two bounds the op itself is at, `memory` or `compute`.
    """
    kernel = max(readings.kernels, key=lambda one: one.metrics.get(DURATION, 0.0) * one.launches)
    found = (
        _spills(kernel)
        or _uncoalesced(kernel)
        or _at_a_limit(kernel, bound)
        or _waiting(kernel)
        or _diverged(kernel)
        or _nearer_limit(kernel)
    )
    evidence = [f"{kernel.function}: {_speed_of_light(kernel)}", *found.evidence]
    evidence += [
        f"line {spot.line} has {spot.share:.0%} of the samples: {spot.source}"
        for spot in readings.hot_spots[:2]
    ]
    return found._replace(evidence=tuple(evidence), moves=found.moves[:3])


def _speed_of_light(kernel: KernelCounters) -> str:
    told = [
        f"{label} {kernel.metrics[name]:.0f}%"
        for label, name in (("SMs at", SM), ("memory at", MEMORY), ("DRAM at", DRAM))
        if name in kernel.metrics
    ]
    if DURATION in kernel.metrics:
        told.append(f"{kernel.metrics[DURATION] / 1e3:.1f} us a launch")
    return ", ".join(told)


def _spills(kernel: KernelCounters) -> Finding | None:
    local = sum(
        kernel.metrics.get(f"smsp__inst_executed_op_local_{name}.sum", 0.0) for name in ("ld", "st")
    )
    executed = kernel.metrics.get("sm__inst_executed.sum", 0.0)
    if not executed or local / executed < SPILLED:
        return None
    registers = kernel.metrics.get("launch__registers_per_thread", 0.0)
    evidence = (
        f"{local / executed:.1%} of its instructions load or store spilled registers, "
        f"at {registers:.0f} registers a thread"
    )
    moves = ("a smaller tile", "more warps for the same tile", "fewer values alive at once")
    return Finding("memory", "spills", (evidence,), moves)


def _uncoalesced(kernel: KernelCounters) -> Finding | None:
    used = kernel.metrics.get(BYTES_PER_SECTOR)
    sectors = kernel.metrics.get(SECTORS_PER_REQUEST)
    if (used is None or used >= COALESCED) and (sectors is None or sectors <= SECTORS):
        return None
    told = []
    if used is not None:
        told.append(f"loads use {used:.0f}% of each sector")
    if sectors is not None:
        told.append(f"{sectors:.1f} sectors a request")
    moves = (
        "neighbouring threads on neighbouring elements",
        "transpose through shared memory",
        "another layout of the operand",
    )
    return Finding("memory", "uncoalesced", (", ".join(told),), moves)


def _at_a_limit(kernel: KernelCounters, bound: str) -> Finding | None:
    metrics = kernel.metrics
    dram, memory, sm = (metrics.get(name, 0.0) for name in (DRAM, MEMORY, SM))
    if dram >= BOUND:
        read, written = (metrics.get(f"dram__bytes_{way}.sum", 0.0) for way in ("read", "write"))
        evidence = f"{read / 1e6:.1f} MB read and {written / 1e6:.1f} MB written a launch"
        moves = ("move fewer bytes: fuse what still goes through memory", "narrower types")
        return Finding("memory", "bandwidth", (evidence,), moves)
    if sm >= BOUND and sm >= memory:
        tensor = metrics.get(TENSOR)
        if tensor is not None and tensor < TENSOR_IDLE and bound == "compute":
            evidence = f"tensor cores are busy {tensor:.0f}% of the time"
            moves = ("products on tensor cores, split where float32 is asked for", "wider tiles")
            return Finding("compute", "no tensor cores", (evidence,), moves)
        evidence = f"tensor cores are busy {tensor or 0.0:.0f}% of the time"
        moves = ("cheaper operations", "fewer of them: hoist what does not change")
        return Finding("compute", "arithmetic", (evidence,), moves)
    if memory >= BOUND:
        hits = metrics.get("lts__t_sector_hit_rate.pct", 0.0)
        evidence = f"caches are full while DRAM is at {dram:.0f}%; L2 hits {hits:.0f}%"
        mends = ("wider loads", "reuse in registers or shared memory", "tile order for L2")
        return Finding("memory", "cache bandwidth", (evidence,), mends)
    return None


def _waiting(kernel: KernelCounters) -> Finding | None:
    metrics = kernel.metrics
    if max(metrics.get(SM, 0.0), metrics.get(MEMORY, 0.0), metrics.get(DRAM, 0.0)) >= WAITING:
        return None
    if metrics.get(DURATION, LAUNCH_NS) < LAUNCH_NS:
        evidence = f"a launch lasts {metrics[DURATION] / 1e3:.1f} us, mostly start and end"
        moves = ("fewer launches: one kernel for the whole op", "a CUDA graph around the calls")
        return Finding("latency", "launch", (evidence,), moves)
    if metrics.get(WAVES, 1.0) < 1.0:
        evidence = f"{metrics[WAVES]:.2f} waves: some multiprocessors have no block"
        moves = ("more, smaller blocks", "split rows or the reduced dimension over blocks")
        return Finding("latency", "few blocks", (evidence,), moves)
    achieved, theoretical = metrics.get(ACHIEVED), metrics.get(THEORETICAL)
    if theoretical is not None and theoretical < OCCUPIED:
        evidence = f"at most {theoretical:.0f}% of the warps fit, limited by {_limit(kernel)}"
        moves = ("fewer registers or less shared memory a block", "another number of warps")
        return Finding("latency", "occupancy", (evidence,), moves)
    if achieved is not None and theoretical and achieved < UNEVEN * theoretical:
        evidence = f"{achieved:.0f}% of the warps are resident, where {theoretical:.0f}% fit"
        moves = ("blocks of equal work", "a persistent kernel that takes tiles in turn")
        return Finding("latency", "imbalance", (evidence,), moves)
    return _stalled(kernel)


def _limit(kernel: KernelCounters) -> str:
    counted = {
        name: kernel.metrics[f"launch__occupancy_limit_{name}"]
        for name in LIMITS
        if f"launch__occupancy_limit_{name}" in kernel.metrics
    }
    if not counted:
        return "what was not read"
    name = min(counted, key=lambda one: counted[one])
    return f"{name.replace('shared_mem', 'shared memory')} ({counted[name]:.0f} blocks)"


def _stalled(kernel: KernelCounters) -> Finding | None:
    stalls = {
        name.removeprefix(STALL_PREFIX).removesuffix(STALL_SUFFIX): value
        for name, value in kernel.metrics.items()
        if name.startswith(STALL_PREFIX)
    }
    if not stalls:
        return None
    leader = max(stalls, key=lambda name: stalls[name])
    if stalls[leader] < STALLED:
        return None
    evidence = f"warps stall on {leader} in {stalls[leader]:.0f}% of their active cycles"
    moves = _STALL_MOVES.get(leader, ("look at the lines that stall",))
    return Finding("latency", "stalls", (evidence,), moves)


def _diverged(kernel: KernelCounters) -> Finding | None:
    uniform = kernel.metrics.get(UNIFORM_BRANCHES)
    if uniform is None or uniform >= UNIFORM:
        return None
    evidence = f"{uniform:.0f}% of the branches are uniform over their warp"
    moves = ("selects instead of branches", "rows of like length in one warp")
    return Finding("compute", "divergence", (evidence,), moves)


def _nearer_limit(kernel: KernelCounters) -> Finding:
    """Neither full nor idle: the larger of the two, with nothing more to say."""
    memory = max(kernel.metrics.get(MEMORY, 0.0), kernel.metrics.get(DRAM, 0.0))
    if memory >= kernel.metrics.get(SM, 0.0):
        moves = ("more bytes in flight: unroll, wider loads", "move fewer bytes")
        return Finding("memory", "", (), moves)
    return Finding("compute", "", (), ("fewer instructions: hoist, unroll", "cheaper operations"))


def read_times(readings: TimeReadings, achieved_gbps: float, found: Finding) -> Finding:
    """What times by kernel, a copy and the processor's counters add to a finding, or change of it.

    Args:
        readings: of a CPU or a GPU.
        achieved_gbps: by the judge's clock.
        found: what the clock and the roofline alone came to.
    """
    first = readings.kernels[0]
    evidence = [
        f"{first.name} takes {first.share:.0%} of the time of {len(readings.kernels)} kernels"
    ]
    own = [one for one in readings.kernels if one.name.startswith("aten::")]
    library = sum(one.share for one in own)
    if readings.copy_gbps > 0:
        share = achieved_gbps / readings.copy_gbps
        evidence.append(f"{share:.0%} of the {readings.copy_gbps:.1f} GB/s that a copy reaches")
        if share >= COPY_SHARE and found.bottleneck == "compute":
            moves: tuple[str, ...] = ("move fewer bytes: fuse what still goes through memory",)
            found = found._replace(bottleneck="memory", cause="bandwidth", moves=moves)
    cycles, done = (readings.counters.get(name, 0.0) for name in ("cycles", "instructions"))
    if cycles and done:
        evidence.append(f"{done / cycles:.2f} instructions a cycle")
        if done / cycles < IDLE_IPC and found.bottleneck == "compute":
            moves = ("more independent accumulators", "prefetch or block what misses the caches")
            found = found._replace(bottleneck="latency", cause="stalls", moves=moves)
    if found.bottleneck != "none" and LIBRARY_SHARE <= library < 1.0:
        evidence.append(f"torch's own operators take {library:.0%} of it")
        longest = max(own, key=lambda one: one.share)
        moves = (f"{longest.name} in the kernel: {longest.share:.0%} of the time", *found.moves)
        found = found._replace(cause="library calls", moves=moves[:3])
    return found._replace(evidence=(*found.evidence, *evidence))


def read_report(kernels: tuple[KernelUse, ...], found: Finding) -> Finding:
    """What the compiler's report adds to a finding, or changes of it."""
    spilled = [kernel for kernel in kernels if kernel.spilled_bytes]
    if spilled and found.bottleneck != "none":
        told = tuple(f"{one.function} spills {one.spilled_bytes} bytes a thread" for one in spilled)
        moves = ("a smaller tile", "more warps for the same tile")
        return Finding("memory", "spills", (*found.evidence, *told), moves)
    known = [kernel for kernel in kernels if kernel.occupancy]
    if not known:
        return found
    least = min(known, key=lambda kernel: kernel.occupancy)
    fits = f"{least.occupancy:.0%} of the warps fit at {least.registers} registers a thread"
    return found._replace(evidence=(*found.evidence, f"{least.function}: {fits}"))
