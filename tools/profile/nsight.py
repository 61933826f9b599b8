"""The first rung: Nsight Compute, its command line, and what it prints.

A few chosen metrics, in base units and at the clocks that the device runs at anyway: scaled units
are misread, and locked clocks make a kernel slower than the one that was timed. Runs the tool
nowhere: the command line is run where candidates are, in a jail.
"""

import ast
import csv
import io
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools.verdict import HotSpot, KernelCounters

CHOICE = "NCU"
# Where installers put it: the toolkit's own, and those of the stand-alone packages, by version.
FOLDERS = ("/usr/local/cuda/bin", "/usr/local/cuda-*/bin", "/opt/nvidia/nsight-compute/*",
           "/usr/local/cuda*/nsight-compute-*", "/usr/local/NVIDIA-Nsight-Compute*")  # fmt: skip
# The first release that knows an architecture, by Nsight Compute's release notes; output before
# 2022 has other columns.
OLDEST = {0: (2022, 1), 89: (2022, 3), 90: (2022, 3), 100: (2025, 1), 120: (2025, 1)}

STALLS = ("long_scoreboard", "short_scoreboard", "barrier", "branch_resolving", "no_instruction",
          "not_selected", "math_pipe_throttle", "lg_throttle", "mio_throttle", "wait")  # fmt: skip
METRICS = (
    "gpu__time_duration.sum",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
    "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "dram__bytes.sum.per_second",
    "l1tex__t_sector_hit_rate.pct",
    "lts__t_sector_hit_rate.pct",
    "l1tex__throughput.avg.pct_of_peak_sustained_active",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.pct",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio",
    "smsp__inst_executed_op_local_ld.sum",
    "smsp__inst_executed_op_local_st.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "sm__maximum_warps_per_active_cycle_pct",
    "sm__inst_executed.sum",
    "sm__inst_executed_pipe_fp32.avg.pct_of_peak_sustained_active",
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "launch__registers_per_thread",
    "launch__shared_mem_per_block_allocated",
    "launch__occupancy_limit_blocks",
    "launch__occupancy_limit_registers",
    "launch__occupancy_limit_shared_mem",
    "launch__occupancy_limit_warps",
    "launch__block_size",
    "launch__grid_size",
    "launch__waves_per_multiprocessor",
    *(f"smsp__warp_issue_stalled_{name}_per_warp_active.pct" for name in STALLS),
    "smsp__sass_average_branch_targets_threads_uniform.pct",
)  # fmt: skip

_REFUSED = "ERR_NVGPUCTRPERM"
_UNKNOWN = re.compile(r"[Ff]ailed to find metric(?: regex)?:?\s+[\"'^]*([\w.]+)")


def find_ncu(root: Path = Path("/")) -> Path | None:
    """Nsight Compute's command: what `NCU` names, else on PATH, else in the usual folders.

    Among several in those folders the newest by name is taken. None where there is none.

    Args:
        root: where the usual folders lie; another folder serves to look at another machine.
    """
    if chosen := os.environ.get(CHOICE):
        path = Path(chosen)
        path = path / "ncu" if path.is_dir() else path
        return path if os.access(path, os.X_OK) else None
    if found := shutil.which("ncu"):
        return Path(found)
    for pattern in FOLDERS:
        for folder in sorted(root.glob(pattern.lstrip("/")), key=_version_in, reverse=True):
            if os.access(folder / "ncu", os.X_OK):
                return folder / "ncu"
    return None


def _version_in(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", path.as_posix())))


def version_of(told: str) -> tuple[int, int] | None:
    """Year and number in what `ncu --version` prints, e.g. (2024, 3)."""
    found = re.search(r"Version (\d{4})\.(\d+)", told)
    return (int(found.group(1)), int(found.group(2))) if found else None


def too_old(version: tuple[int, int], capability: int) -> str:
    """Why this version can't profile such a device; empty where it can."""
    needed = max(first for known, first in OLDEST.items() if capability >= known)
    if version >= needed:
        return ""
    return (
        f"version {_dotted(version)} is too old for sm_{capability}, which needs {_dotted(needed)}"
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def own_kernels(source: str) -> tuple[str, ...]:
    """The names of the kernels that a candidate defines: `@triton.jit` and `__global__`.

    A function that only other kernels call matches no launch, and does no harm here.
    """
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and any(
            "jit" in ast.unparse(one) for one in node.decorator_list
        ):
            names.append(node.name)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names += re.findall(
                r"__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*|void\s+|static\s+)*(\w+)\s*\(",
                node.value,
            )
    return tuple(dict.fromkeys(names))


def command_line(ncu: Path, kernels: Sequence[str], metrics: Iterable[str], log: Path) -> list[str]:
    """The command up to the program it profiles, which says itself from where to where.

    Args:
        ncu: the tool.
        kernels: the only ones to profile, by function name; none of them: every kernel.
        metrics: by the tool's names; what it does not know, it fails on.
        log: where its table goes: a program's own prints would mix with it.
    """
    table = ["--csv", "--page=raw", "--print-units=base", f"--metrics={','.join(metrics)}"]
    return [*_profiling(ncu, kernels), *table, f"--log-file={log}"]


def sampling_command(ncu: Path, kernels: Sequence[str], report: Path) -> list[str]:
    """As `command_line`, but it keeps a report with samples by line of source."""
    kept = ["--section=SourceCounters", "--import-source=yes", f"--export={report}"]
    return [*_profiling(ncu, kernels), *kept, "--force-overwrite"]


def _profiling(ncu: Path, kernels: Sequence[str]) -> list[str]:
    chosen = [f"--kernel-name=regex:^({'|'.join(map(re.escape, kernels))})$"] if kernels else []
    return [str(ncu), "--clock-control=none", "--profile-from-start=off", "--target-processes=all",
            "--kernel-name-base=function", *chosen]  # fmt: skip


def source_command(ncu: Path, report: Path) -> list[str]:
    """The command that prints a kept report line by line of the source."""
    return [str(ncu), f"--import={report}", "--page=source", "--csv", "--print-units=base",
            "--print-source=cuda"]  # fmt: skip


def refusal(told: str) -> str:
    """Why a run of the tool gave nothing, from what it printed; empty where it names no reason."""
    if _REFUSED in told:
        return f"the driver keeps its counters to administrators ({_REFUSED})"
    if "No kernels were profiled" in told:
        return "none of the candidate's own kernels was launched"
    errors = re.findall(r"^==ERROR==\s*(.+)$", told, re.MULTILINE)
    return " ".join(errors)[:300]


def unknown_metrics(told: str) -> frozenset[str]:
    """The metrics that the tool said it does not know on this device."""
    return frozenset(name.rstrip(".") for name in _UNKNOWN.findall(told))


def read_counters(text: str) -> tuple[KernelCounters, ...]:
    """The kernels in the tool's CSV, launches of a kernel as their mean.

    Both forms are read: one row a launch, with a row of units under the header (`--page raw`), and
    one row a metric (`--page details`). What is not a number, as `n/a`, is left out.

    Raises:
        ValueError: there is no table in it.
    """
    rows = _table(text, "ID")
    launches: dict[tuple[str, str], dict[str, float]] = {}
    described: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        key = (row.get("Kernel Name", ""), row.get("ID", ""))
        if not row.get("ID"):
            continue  # the row of units
        found = launches.setdefault(key, {})
        described.setdefault(key, row)
        cells = (
            [(row["Metric Name"], row.get("Metric Value", ""))]
            if "Metric Name" in row
            else [(name, cell) for name, cell in row.items() if "__" in name]
        )
        found.update({name: value for name, cell in cells if (value := _number(cell)) is not None})
    return tuple(
        _merged(function, launches, described) for function in dict.fromkeys(k for k, _ in launches)
    )


def _merged(
    function: str,
    launches: dict[tuple[str, str], dict[str, float]],
    described: dict[tuple[str, str], dict[str, str]],
) -> KernelCounters:
    keys = [key for key in launches if key[0] == function]
    names = dict.fromkeys(name for key in keys for name in launches[key])
    metrics = {}
    for name in names:
        values = [launches[key][name] for key in keys if name in launches[key]]
        metrics[name] = sum(values) / len(values)
    row = described[keys[0]]
    return KernelCounters(
        function=re.sub(r"\(.*", "", function).strip(),
        launches=len(keys),
        block=row.get("Block Size", ""),
        grid=row.get("Grid Size", ""),
        metrics=metrics,
    )


def read_hot_spots(text: str, function: str, most: int = 5) -> tuple[HotSpot, ...]:
    """The lines with most samples in the tool's source page; none where it has no such column."""
    try:
        rows = _table(text, "#", "Line No", "Line")
    except ValueError:
        rows = []
    if not rows:
        return ()
    names = list(rows[0])
    line = next(name for name in names if name in ("#", "Line No", "Line"))
    samples = next(
        (name for name in names
         if name.startswith(("Warp Stall Sampling (All", "# Samples", "Sampling Data (All"))),
        None,
    )  # fmt: skip
    if samples is None:
        return ()
    counted = [(_number(row.get(samples, "")) or 0.0, row) for row in rows]
    total = sum(count for count, _ in counted)
    found = sorted(counted, key=lambda pair: -pair[0])[:most]
    return tuple(
        HotSpot(
            function=function,
            line=int(_number(row[line]) or 0),
            source=row.get("Source", "").strip()[:200],
            share=count / total,
        )
        for count, row in found
        if count > 0
    )


def _table(text: str, *first: str) -> list[dict[str, str]]:
    """The CSV table whose header begins with one of these columns; the tool's remarks go before.

    Raises:
        ValueError: there is none.
    """
    lines = text.splitlines()
    starts = tuple(f'"{name}"' for name in first)
    at = next((number for number, line in enumerate(lines) if line.startswith(starts)), None)
    if at is None:
        raise ValueError("Nsight Compute printed no table")
    rows = [line for line in lines[at:] if not line.startswith("==")]
    return list(csv.DictReader(io.StringIO("\n".join(rows))))


def _number(cell: str | None) -> float | None:
    """A cell as a number; the tool sets commas between thousands."""
    try:
        return float((cell or "").replace(",", ""))
    except ValueError:
        return None
