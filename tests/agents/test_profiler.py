"""The playbook's profiler: one bottleneck, its numbers, and moves, from each kind of reading."""

import pytest

from agents.brief import Brief, Diagnosis
from agents.playbook.profiler import PlaybookProfiler
from agents.playbook.readings import read_counters
from tests.graph.builders import a_win
from tools.facts import Roofline
from tools.verdict import (
    CounterReadings,
    HotSpot,
    KernelCounters,
    KernelTime,
    KernelUse,
    Profile,
    Readings,
    ReportReadings,
    TimeReadings,
    Trial,
)

SM = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
MEMORY = "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed"
DRAM = "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed"
TENSOR = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed"
IDLE = {SM: 20.0, MEMORY: 25.0, DRAM: 22.0, "gpu__time_duration.sum": 90_000.0}


def counted(**metrics: float) -> CounterReadings:
    kernel = KernelCounters(
        function="rows_kernel", launches=1, block="(128, 1, 1)", grid="(4096, 1, 1)",
        metrics=metrics,
    )  # fmt: skip
    return CounterReadings(tool="Nsight Compute 2024.3", kernels=(kernel,))


@pytest.mark.parametrize(
    ("metrics", "bottleneck", "cause", "told"),
    [
        ({SM: 30, MEMORY: 91, DRAM: 91, "dram__bytes_read.sum": 134e6}, "memory", "bandwidth",
         "134.0 MB read"),
        ({SM: 40, MEMORY: 88, DRAM: 20}, "memory", "cache bandwidth", "DRAM is at 20%"),
        ({SM: 93, MEMORY: 40, DRAM: 10, TENSOR: 88}, "compute", "arithmetic", "busy 88%"),
        ({SM: 93, MEMORY: 40, DRAM: 10, TENSOR: 0}, "compute", "no tensor cores", "busy 0%"),
        ({**IDLE, "smsp__inst_executed_op_local_ld.sum": 300, "sm__inst_executed.sum": 6000},
         "memory", "spills", "5.0% of its instructions"),
        ({SM: 30, MEMORY: 91, DRAM: 91,
          "smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.pct": 12.5},
         "memory", "uncoalesced", "12% of each sector"),
        ({SM: 30, MEMORY: 91, DRAM: 91,
          "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio": 32},
         "memory", "uncoalesced", "32.0 sectors a request"),
        ({**IDLE, "gpu__time_duration.sum": 3_000}, "latency", "launch", "lasts 3.0 us"),
        ({**IDLE, "launch__waves_per_multiprocessor": 0.4}, "latency", "few blocks", "0.40 waves"),
        ({**IDLE, "sm__maximum_warps_per_active_cycle_pct": 25.0,
          "launch__occupancy_limit_registers": 2, "launch__occupancy_limit_blocks": 32},
         "latency", "occupancy", "limited by registers (2 blocks)"),
        ({**IDLE, "sm__maximum_warps_per_active_cycle_pct": 100.0,
          "sm__warps_active.avg.pct_of_peak_sustained_active": 41.0},
         "latency", "imbalance", "41% of the warps are resident, where 100% fit"),
        ({**IDLE, "smsp__warp_issue_stalled_long_scoreboard_per_warp_active.pct": 62.0,
          "smsp__warp_issue_stalled_barrier_per_warp_active.pct": 8.0},
         "latency", "stalls", "long_scoreboard in 62%"),
        ({SM: 70, MEMORY: 40, DRAM: 10,
          "smsp__sass_average_branch_targets_threads_uniform.pct": 80.0},
         "compute", "divergence", "80% of the branches"),
        ({SM: 45, MEMORY: 65, DRAM: 65}, "memory", "", "memory at 65%"),
    ],
)  # fmt: skip
def test_counters_name_one_bottleneck_with_its_numbers(
    metrics: dict[str, float], bottleneck: str, cause: str, told: str
) -> None:
    found = read_counters(counted(**metrics), "compute")
    assert (found.bottleneck, found.cause) == (bottleneck, cause)
    assert any(told in one for one in found.evidence), found.evidence
    assert 1 <= len(found.moves) <= 3


def test_the_kernel_that_takes_most_time_is_the_one_that_is_read() -> None:
    long = counted(**{SM: 30, DRAM: 90, "gpu__time_duration.sum": 90e3}).kernels[0]
    short = counted(**{SM: 95, DRAM: 5, "gpu__time_duration.sum": 9e3}).kernels[0]
    long, short = (
        one.model_copy(update={"function": name}) for one, name in ((long, "a"), (short, "b"))
    )
    found = read_counters(CounterReadings(tool="x", kernels=(short, long)), "memory")
    assert found.cause == "bandwidth"
    assert found.evidence[0].startswith("a: ")


def test_lines_of_source_that_wait_are_evidence() -> None:
    spot = HotSpot(function="rows_kernel", line=11, source="x = tl.load(p)", share=0.7)
    readings = counted(**{SM: 30, DRAM: 90}).model_copy(update={"hot_spots": (spot,)})
    evidence = read_counters(readings, "memory").evidence
    assert "line 11 has 70% of the samples: x = tl.load(p)" in evidence


def explained(
    readings: Readings | None, cold_gbps: float | None = None, **changed: object
) -> Diagnosis:
    """What the profiler says of a finished run's winner, its profile changed so."""
    run = a_win()
    trial: Trial = run.trial(run.winner or 0)
    assert trial.profile is not None
    profile: Profile = trial.profile.model_copy(update={"readings": readings, **changed})
    roof: Roofline = run.roofline.model_copy(update={"cold_gbps": cold_gbps})
    brief = Brief(
        task=run.task, device=run.device, facts=run.facts, baselines=run.baselines, roofline=roof,
        trials_left=1, seconds_left=1.0,
    )  # fmt: skip
    return PlaybookProfiler().explain(brief, trial.model_copy(update={"profile": profile}))


SLOW = {"roofline_fraction": 0.3, "page_fault_ms": 0.0, "bound": "memory"}


def timed(*kernels: tuple[str, float], **changed: object) -> TimeReadings:
    named = tuple(
        KernelTime(name=name, calls=1, self_us=100 * share, share=share) for name, share in kernels
    )
    return TimeReadings(forward_us=100.0, kernels=named).model_copy(update=changed)


def test_a_kernel_at_a_copys_bandwidth_is_bound_by_memory_whatever_the_roofline_says() -> None:
    assert explained(None, **SLOW).bottleneck == "compute"
    readings = timed(("rows_kernel", 1.0), copy_gbps=10.0)
    found = explained(readings, **SLOW, achieved_gbps=9.0)
    assert (found.bottleneck, found.cause) == ("memory", "bandwidth")
    assert "90% of the 10.0 GB/s that a copy reaches" in found.evidence


def test_a_kernel_at_what_memory_gives_past_the_caches_is_bound_by_memory() -> None:
    found = explained(None, cold_gbps=10.0, **SLOW, achieved_gbps=8.5)
    assert found.bottleneck == "memory"
    assert any("85% of the 10.0 GB/s" in one for one in found.evidence)
    assert explained(None, cold_gbps=10.0, **SLOW, achieved_gbps=5.0).bottleneck == "compute"


def test_few_instructions_a_cycle_is_waiting_and_not_arithmetic() -> None:
    readings = timed(("rows_kernel", 1.0), counters={"cycles": 1e6, "instructions": 4e5})
    found = explained(readings, **SLOW)
    assert (found.bottleneck, found.cause) == ("latency", "stalls")
    assert "0.40 instructions a cycle" in found.evidence


def test_the_librarys_share_of_the_time_is_named_first_among_the_moves() -> None:
    found = explained(timed(("rows_kernel", 0.6), ("aten::copy_", 0.4)), **SLOW)
    assert found.cause == "library calls"
    assert "torch's own operators take 40% of it" in found.evidence
    assert found.moves[0] == "aten::copy_ in the kernel: 40% of the time"
    assert len(found.moves) <= 3


def test_a_kernel_at_its_bound_needs_no_move_whatever_was_read() -> None:
    found = explained(counted(**IDLE), **SLOW | {"roofline_fraction": 0.99})
    assert (found.bottleneck, found.moves) == ("none", ())
    assert any("rows_kernel" in one for one in found.evidence)


def test_spills_in_the_compilers_report_are_the_cause() -> None:
    use = KernelUse(
        function="rows_kernel", architecture="sm_90", registers=255, stack_bytes=64,
        spilled_bytes=128, shared_bytes=0, threads=128, occupancy=0.25,
    )  # fmt: skip
    found = explained(ReportReadings(kernels=(use,)), **SLOW)
    assert (found.bottleneck, found.cause) == ("memory", "spills")
    clean = use.model_copy(update={"spilled_bytes": 0})
    found = explained(ReportReadings(kernels=(clean,)), **SLOW)
    assert found.cause == ""
    assert "rows_kernel: 25% of the warps fit at 255 registers a thread" in found.evidence
