"""Nsight Compute: where it is found, what it is asked, and how what it prints is read.

The texts have the form that its documentation shows for 2023.3 (one row a launch, `--page raw`) and
for the page of details; they were written for these tests, not printed by the tool.
"""

from pathlib import Path

import pytest

from tools.profile.nsight import (
    METRICS,
    command_line,
    find_ncu,
    own_kernels,
    read_counters,
    read_hot_spots,
    refusal,
    too_old,
    unknown_metrics,
    version_of,
)

RAW = """==PROF== Connected to process 4711 (/usr/bin/python3.11)
==PROF== Profiling "softmax_kernel" - 0: 0%....50%....100% - 2 passes
==PROF== Disconnected from process 4711
"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size",\
"Grid Size","Device","CC","gpu__time_duration.sum","dram__bytes_read.sum",\
"launch__registers_per_thread","sm__throughput.avg.pct_of_peak_sustained_elapsed",\
"lts__t_sector_hit_rate.pct"
"","","","","","","","","","","","ns","byte","register/thread","%","%"
"0","4711","python3.11","127.0.0.1","softmax_kernel","1","7","(128, 1, 1)","(4096, 1, 1)","0",\
"9.0","52,736","134,217,728","32","18.50","n/a"
"1","4711","python3.11","127.0.0.1","softmax_kernel","1","7","(128, 1, 1)","(4096, 1, 1)","0",\
"9.0","53,264","134,217,728","32","19.50","n/a"
"2","4711","python3.11","127.0.0.1","finish(float *, int)","1","7","(256, 1, 1)","(1, 1, 1)","0",\
"9.0","2,112","4,096","16","0.25","88.25"
"""
DETAILS = """"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream",\
"Block Size","Grid Size","Device","CC","Section Name","Metric Name","Metric Unit","Metric Value"
"0","99","python3","127.0.0.1","gelu_kernel","1","7","(256, 1, 1)","(64, 1, 1)","0","8.0",\
"Command line profiler metrics","gpu__time_duration.sum","nsecond","11,200"
"0","99","python3","127.0.0.1","gelu_kernel","1","7","(256, 1, 1)","(64, 1, 1)","0","8.0",\
"Command line profiler metrics","dram__bytes_write.sum","byte","2048"
"""
SOURCE = """"#","Source","Warp Stall Sampling (All Samples)",\
"Warp Stall Sampling (Not-issued Samples)"
"11","    x = tl.load(ptr + offsets)","1,200","900"
"12","    y = tl.exp(x)","300","120"
"13","","0","0"
"""
TRITON = '''
import triton
import triton.language as tl

@triton.jit
def softmax_kernel(x):
    pass

@triton.autotune(configs=[], key=[])
@triton.jit
def tuned_kernel(x):
    pass

def launch():
    pass

CUDA = """
extern "C" __global__ void __launch_bounds__(256) rows(float* x) {}
template <int N> __global__ void scaled (float* x) {}
__device__ float helper(float x) { return x; }
"""
'''


def test_launches_of_a_kernel_are_read_as_their_mean_in_base_units() -> None:
    softmax, finish = read_counters(RAW)
    assert softmax.function == "softmax_kernel"
    assert softmax.launches == 2
    assert softmax.metrics["gpu__time_duration.sum"] == 53_000
    assert softmax.metrics["dram__bytes_read.sum"] == 134_217_728
    assert softmax.metrics["sm__throughput.avg.pct_of_peak_sustained_elapsed"] == 19
    assert softmax.grid == "(4096, 1, 1)"
    assert finish.function == "finish"
    assert finish.metrics["lts__t_sector_hit_rate.pct"] == 88.25


def test_what_is_no_number_is_left_out() -> None:
    softmax, _ = read_counters(RAW)
    assert "lts__t_sector_hit_rate.pct" not in softmax.metrics


def test_a_row_for_each_metric_is_read_as_well() -> None:
    (kernel,) = read_counters(DETAILS)
    assert kernel.launches == 1
    assert kernel.metrics == {"gpu__time_duration.sum": 11_200, "dram__bytes_write.sum": 2048}


def test_a_print_without_a_table_is_an_error_and_not_an_empty_profile() -> None:
    with pytest.raises(ValueError, match="no table"):
        read_counters("==ERROR== something else\n")


def test_the_lines_that_warps_wait_at_come_with_their_share() -> None:
    first, second = read_hot_spots(SOURCE, "softmax_kernel")
    assert (first.line, first.share) == (11, 0.8)
    assert first.source == "x = tl.load(ptr + offsets)"
    assert second.share == pytest.approx(0.2)
    assert read_hot_spots("no table", "softmax_kernel") == ()


def test_refused_counters_are_named_as_such() -> None:
    told = (
        "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU "
        "Performance Counters on the target device 0."
    )
    assert "ERR_NVGPUCTRPERM" in refusal(told)
    assert "administrators" in refusal(told)
    assert "launched" in refusal("==WARNING== No kernels were profiled.")
    assert refusal("==ERROR== Unsupported GPU\n") == "Unsupported GPU"
    assert refusal("all is well") == ""


def test_metrics_that_a_device_does_not_have_are_recognised() -> None:
    told = "==ERROR== Failed to find metric sm__inst_executed_pipe_tensor.avg.pct_of_peak\n"
    assert unknown_metrics(told) == {"sm__inst_executed_pipe_tensor.avg.pct_of_peak"}


@pytest.mark.parametrize(
    ("version", "capability", "fits"),
    [((2021, 3), 80, False), ((2022, 1), 80, True), ((2022, 2), 90, False), ((2023, 3), 90, True),
     ((2024, 3), 100, False), ((2025, 1), 100, True), ((2025, 1), 120, True)],
)  # fmt: skip
def test_a_tool_older_than_the_device_is_not_used(
    version: tuple[int, int], capability: int, fits: bool
) -> None:
    assert (too_old(version, capability) == "") is fits


def test_the_version_is_read_from_what_the_tool_says_of_itself() -> None:
    told = (
        "NVIDIA (R) Nsight Compute Command Line Profiler\nCopyright (c) 2018-2024 NVIDIA "
        "Corporation\nVersion 2024.3.2.0 (build 34861637) (public-release)\n"
    )
    assert version_of(told) == (2024, 3)
    assert version_of("command not found") is None


def test_only_the_candidates_own_kernels_are_asked_for() -> None:
    names = own_kernels(TRITON)
    assert names == ("softmax_kernel", "tuned_kernel", "rows", "scaled")
    line = command_line(Path("/opt/ncu"), names, METRICS, Path("/tmp/log"))
    assert "--kernel-name=regex:^(softmax_kernel|tuned_kernel|rows|scaled)$" in line
    assert {"--print-units=base", "--clock-control=none", "--csv"} <= set(line)
    assert not any(
        "kernel-name=" in one for one in command_line(Path("/x"), (), METRICS, Path("/l"))
    )


def put(folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / "ncu"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_tool_is_found_by_name_then_on_the_path_then_in_the_usual_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NCU", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert find_ncu(tmp_path) is None
    put(tmp_path / "opt/nvidia/nsight-compute/2023.3.1")
    newest = put(tmp_path / "opt/nvidia/nsight-compute/2025.1.0")
    assert find_ncu(tmp_path) == newest
    on_path = put(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_ncu(tmp_path) == on_path
    chosen = put(tmp_path / "mine")
    monkeypatch.setenv("NCU", str(chosen.parent))
    assert find_ncu(tmp_path) == chosen
    monkeypatch.setenv("NCU", str(tmp_path / "gone"))
    assert find_ncu(tmp_path) is None
