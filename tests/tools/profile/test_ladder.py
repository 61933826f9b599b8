"""The ladder: which rung is reached, what is read there, and what is said of those above it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from knowledge.device import detect, load_devices
from tests.tools.profile.kernels import CPP, RAISES, REFERENCE, TRITON
from tests.tools.profile.test_nsight import RAW, SOURCE
from tools.profile.__main__ import app
from tools.profile.ladder import (
    REPORT,
    WALL_CLOCK,
    Climb,
    Subject,
    climb,
    read_counted,
    read_times,
)
from tools.verdict import CounterReadings, Profile, ReportReadings, TimeReadings

BYTES = 32 << 20
PROFILE = Profile(
    rung=WALL_CLOCK, median_ms=1.0, achieved_gbps=1.0, achieved_gflops=1.0, roofline_fraction=0.5,
    bound="memory", page_faults=0.0, page_fault_ms=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def on_cpu() -> Climb:
    """A C++ kernel on this machine, once for all tests."""
    return climb(Subject(candidate=CPP, reference=REFERENCE, moved_bytes=BYTES), detect())


def test_on_a_cpu_each_kernel_has_its_time_by_name(on_cpu: Climb) -> None:
    readings = on_cpu.readings
    assert isinstance(readings, TimeReadings)
    kernel = readings.kernels[0]
    assert kernel.name == "twice_kernel"
    assert kernel.calls == 1
    assert 0.5 < kernel.share <= 1
    assert readings.forward_us > 0
    assert readings.copy_gbps > 0


def test_on_a_cpu_counters_are_read_or_it_is_said_why_not(on_cpu: Climb) -> None:
    readings = on_cpu.readings
    assert isinstance(readings, TimeReadings)
    assert on_cpu.rung.startswith("torch profiler")
    if "instructions" in readings.counters:
        assert "perf stat" in on_cpu.rung
        assert readings.counters["instructions"] > 4096 * 1024 / 16
    else:
        (skipped,) = on_cpu.skipped
        assert skipped.rung == "perf stat"
        assert skipped.reason


def test_a_kernel_that_raises_leaves_the_wall_clock_and_a_reason() -> None:
    subject = Subject(candidate=RAISES, reference=REFERENCE, moved_bytes=BYTES)
    found = climb(subject, detect())
    assert found.readings is None
    assert found.rung == WALL_CLOCK
    assert "no forward today" in found.skipped[0].reason


def test_a_profile_says_its_rung_and_which_were_skipped(on_cpu: Climb) -> None:
    profile = on_cpu.added_to(PROFILE)
    assert profile.rung == f"{on_cpu.rung}; {WALL_CLOCK}"
    assert profile.readings == on_cpu.readings
    assert Profile.model_validate_json(profile.model_dump_json()) == profile
    assert Climb(rung=WALL_CLOCK).added_to(PROFILE) == PROFILE


def test_a_profile_of_an_earlier_version_is_still_read() -> None:
    old = PROFILE.model_dump(exclude={"skipped", "readings"})
    assert Profile.model_validate(old) == PROFILE


def test_for_a_device_that_is_not_here_the_compilers_report_is_read() -> None:
    subject = Subject(candidate=TRITON, reference=REFERENCE, moved_bytes=BYTES)
    found = climb(subject, load_devices()["h100-sxm5"], present=False)
    assert found.rung == REPORT
    assert [one.rung for one in found.skipped] == ["Nsight Compute", "torch profiler"]
    assert isinstance(found.readings, ReportReadings)
    (kernel,) = found.readings.kernels
    assert kernel.function == "twice_kernel"
    assert kernel.registers > 0


def test_a_gpu_without_nsight_compute_takes_the_next_rung_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Here no GPU is there either, so that the last rung is reached, each with its reason."""
    monkeypatch.setenv("NCU", str(tmp_path / "none"))
    subject = Subject(candidate=TRITON, reference=REFERENCE, moved_bytes=BYTES)
    found = climb(subject, load_devices()["a100-sxm4-80gb"])
    reasons = {one.rung: one.reason for one in found.skipped}
    assert "not found on PATH" in reasons["Nsight Compute"]
    if found.rung == REPORT:
        assert reasons["torch profiler"]


def test_a_tool_that_is_too_old_is_skipped_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A script stands for the tool: only what it says of its version is asked of it."""
    tool = tmp_path / "ncu"
    tool.write_text("#!/bin/sh\necho 'Version 2022.2.1.0 (build 1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("NCU", str(tool))
    subject = Subject(candidate=RAISES, reference=REFERENCE, moved_bytes=BYTES)
    found = climb(subject, load_devices()["b200"])
    assert "2022.2 is too old for sm_100, which needs 2025.1" in found.skipped[0].reason


def test_counters_and_hot_spots_become_readings() -> None:
    found = read_counted({"table": RAW, "told": "", "lines": SOURCE}, "Nsight Compute 2024.3")
    assert isinstance(found, CounterReadings)
    assert found.tool == "Nsight Compute 2024.3"
    assert [one.function for one in found.kernels] == ["softmax_kernel", "finish"]
    assert found.hot_spots[0].line == 11


def test_refused_counters_are_a_reason_and_not_a_reading() -> None:
    told = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission"
    found = read_counted({"table": "", "told": told}, "Nsight Compute 2024.3")
    assert isinstance(found, str)
    assert "ERR_NVGPUCTRPERM" in found


@pytest.mark.parametrize("answer", [{}, {"times": {"kernels": 3}}, {"times": {"kernels": []}}])
def test_an_answer_of_another_form_is_a_reason(answer: dict[str, object]) -> None:
    """The candidate shares the process that answers: it may write anything."""
    assert isinstance(read_times(answer), str)


def test_the_command_prints_one_document(tmp_path: Path) -> None:
    (tmp_path / "reference.py").write_text(REFERENCE)
    (tmp_path / "kernel.py").write_text(TRITON.source)
    done = CliRunner().invoke(
        app,
        [
            str(tmp_path / "reference.py"),
            str(tmp_path / "kernel.py"),
            "--target",
            "cuda:l4",
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["device"] == "l4"
    assert document["rung"] == REPORT
    assert document["readings"]["kernels"][0]["architecture"] == "sm_89"
    assert document["forward_ms"] is None
    assert document["roofline"]["bandwidth_gbps"] == 300


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text("x = 1\n")
    done = CliRunner().invoke(app, [str(tmp_path / "reference.py"), str(tmp_path / "kernel.py")])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
