"""The GPU of a machine: known by its driver's name, and kept once it was measured."""

from pathlib import Path

import pytest
import torch

from knowledge.device import (
    Device,
    Figure,
    cache_folder,
    describe_gpu,
    detect,
    keep,
    known_devices,
    load_devices,
    present_gpu,
    resolve,
    torch_is_for_gpus,
)
from knowledge.errors import BadInput
from knowledge.gpu import DriverFacts
from tools.profile.occupancy import occupancy
from tools.profile.present import ensure_described
from tools.task import device_of, parse_task

FACTS = DriverFacts(
    name="NVIDIA GeForce RTX 6090 Dream", capability=120, multiprocessors=200,
    memory_bytes=48 << 30, l2_bytes=128 << 20, shared_per_sm=100 << 10, shared_per_block=99 << 10,
    registers_per_sm=256 << 10, threads_per_sm=1536, blocks_per_sm=24, clock_khz=2_500_000,
    memory_clock_khz=16_000_000, memory_bus_bits=512,
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command in the driver's place, which names the GPU that a file beside it holds."""
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "nvidia-smi"
    command.write_text('#!/bin/sh\nread line < "${0%/*}/name"; echo "$line"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "name"


@pytest.mark.parametrize("name", ["a10", "h100-nvl", "gh200", "t4", "rtx-5090"])
def test_the_present_gpu_is_known_by_what_the_driver_calls_it(driver: Path, name: str) -> None:
    driver.write_text(f"{load_devices()[name].detected_as[0]}\n")
    found = present_gpu()
    assert found is not None
    assert found.name == name
    assert resolve("cuda", "x") == found


def test_an_unknown_gpu_is_bad_input_that_says_how_to_measure_it(driver: Path) -> None:
    driver.write_text(f"{FACTS.name}\n")
    assert present_gpu() is None
    with pytest.raises(BadInput, match=r"measure_device cuda"):
        resolve("cuda", "x")


@pytest.mark.parametrize(("able", "kind"), [(True, "cuda"), (False, "cpu")])
def test_a_task_for_whatever_is_here_is_the_gpus_only_where_torch_is_built_for_one(
    able: bool, kind: str, driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.write_text(f"{load_devices()['a10'].detected_as[0]}\n")
    monkeypatch.setattr("tools.task.torch_is_for_gpus", lambda: able)
    task = parse_task({"op": "torch.exp", "inputs": [{"shape": [8, 8]}]}, "t.yaml", Path.cwd())
    assert device_of(task, "t.yaml: target").kind == kind


def test_what_torch_is_built_for_is_told_without_loading_it() -> None:
    assert torch_is_for_gpus() == (torch.version.cuda is not None)


def measured() -> Device:
    figures = {
        name: Figure(value=value, unit=unit, source="measured: a test")
        for name, value, unit in (("memory_bandwidth", 1900.0, "GB/s"), ("fp32", 110.0, "TFLOPS"))
    }
    described = describe_gpu(FACTS)
    return described.model_copy(update={"figures": {**described.figures, **figures}})


def test_a_measured_gpu_is_kept_and_found_from_then_on(driver: Path) -> None:
    driver.write_text(f"{FACTS.name}\n")
    path = keep(measured())
    assert path.parent == cache_folder()
    found = resolve("cuda", "x")
    assert found.model_copy(update={"page": ""}) == measured()
    assert resolve("cuda:rtx-6090-dream", "x") == found
    assert occupancy(found, 256, 32, 0).share == 1.0


def test_what_the_driver_tells_is_a_page_of_its_own_units() -> None:
    device = describe_gpu(FACTS)
    assert device.architecture == "sm_120"
    assert device.figures["warps_per_sm"].value == 48
    assert device.figures["bus_bandwidth"].value == 2048
    assert device.figures["boost_clock"].value == 2500


def test_a_shipped_page_is_never_replaced_by_a_measured_one() -> None:
    shipped = load_devices()["a10"]
    keep(shipped.model_copy(update={"title": "something else"}))
    assert known_devices()["a10"] == shipped


def test_a_broken_cache_does_not_stop_a_run() -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / "x.toml").write_text("name = ")
    assert set(known_devices()) == set(load_devices())


def test_what_was_measured_of_this_cpu_is_found_by_detection() -> None:
    copy = Figure(value=12.5, unit="GB/s", source="measured: a test")
    device = detect()
    assert "copy_bandwidth" not in device.figures
    keep(device.model_copy(update={"figures": {"copy_bandwidth": copy}}))
    assert detect().figures["copy_bandwidth"] == copy


def test_nothing_is_measured_where_nothing_is_missing(driver: Path) -> None:
    driver.write_text("NVIDIA A10\n")
    assert ensure_described("cuda") == ""
    assert ensure_described("cpu") == ""
    assert not cache_folder().exists()
