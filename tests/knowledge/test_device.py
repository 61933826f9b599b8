"""Devices: what a machine is, read off its files or its page."""

import re
from pathlib import Path

import pytest

from knowledge.device import Device, detect, load_devices, resolve
from knowledge.errors import BadInput

EXPECTED = {
    "a100-sxm4-40gb", "a100-sxm4-80gb", "b200", "h100-pcie", "h100-sxm5", "h200-sxm",
    "l4", "l40s", "rtx-3090", "rtx-4090", "t4", "v100-sxm2",
}  # fmt: skip


def machine(root: Path, cpuinfo: str, caches: dict[str, tuple[str, str, str]], thp: str) -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo)
    for index, (level, kind, size) in caches.items():
        folder = root / "sys/devices/system/cpu/cpu0/cache" / index
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    pages = root / "sys/kernel/mm/transparent_hugepage"
    pages.mkdir(parents=True)
    (pages / "enabled").write_text(thp)
    return root


def test_a_cpu_is_described_by_what_the_system_says_of_it(tmp_path: Path) -> None:
    root = machine(
        tmp_path / "root",
        "processor\t: 0\nmodel name\t: AMD EPYC(TM) 7B13 CPU @ 2.45GHz\ncpu MHz\t\t: 2450.5\n"
        "flags\t\t: fpu sse4_2 avx fma avx2\n\nprocessor\t: 1\nmodel name\t: other\n",
        {
            "index0": ("1", "Data", "32K"),
            "index1": ("1", "Instruction", "32K"),
            "index2": ("2", "Unified", "512K"),
            "index3": ("3", "Unified", "32M"),
        },
        "always [madvise] never\n",
    )
    device = detect(root)
    assert device.kind == "cpu"
    assert re.fullmatch(r"amd-epyc-7b13-\d+c", device.name)
    assert device.vector_bits == 256
    assert device.architecture.endswith("avx2")
    assert device.caches == {"l1d": 32 << 10, "l2": 512 << 10, "l3": 32 << 20}
    assert device.figures["clock"].value == 2450.5
    assert device.features[-1] == "thp-madvise"


def test_an_arm_cpu_tells_its_vector_length(tmp_path: Path) -> None:
    root = machine(
        tmp_path / "root", "processor : 0\nFeatures : fp asimd sve\n", {}, "[always] never\n"
    )
    (root / "proc/sys/abi").mkdir(parents=True)
    (root / "proc/sys/abi/sve_default_vector_length").write_text("32\n")
    assert detect(root).vector_bits == 256


def test_a_machine_that_tells_nothing_still_has_a_name_and_a_core(tmp_path: Path) -> None:
    device = detect(tmp_path)
    assert device.name
    assert device.cores >= 1
    assert device.caches == {}


def test_a_control_groups_memory_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("536870912\n")
    assert detect(tmp_path).memory_gib == 0.5


def test_detection_is_repeatable_and_travels_as_json() -> None:
    device = detect()
    assert device == detect()
    assert Device.model_validate_json(device.model_dump_json()) == device


def test_the_common_gpus_are_described() -> None:
    assert set(load_devices()) >= EXPECTED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_each_number_names_its_source_and_sparse_peaks_are_twice_the_dense(name: str) -> None:
    device = load_devices()[name]
    assert device.kind == "cuda"
    assert device.page == f"devices/{name}.toml"
    assert all(figure.source and figure.unit for figure in device.figures.values())
    assert 200 <= device.figures["memory_bandwidth"].value <= 9000
    assert device.caches["shared_per_block"] <= device.caches["shared_per_sm"]
    for key, figure in device.figures.items():
        if key.endswith("_sparse"):
            dense = device.figures[key.removesuffix("_sparse")]
            assert figure.value / dense.value == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("name", ["a100-sxm4-80gb", "h100-sxm5", "h100-pcie", "rtx-4090"])
def test_fp32_peaks_follow_from_cores_and_a_plausible_clock(name: str) -> None:
    device = load_devices()[name]
    lanes = 64 if device.architecture == "sm_80" else 128
    clock_mhz = device.figures["fp32"].value * 1e6 / (device.cores * lanes * 2)
    assert 1300 < clock_mhz < 2600


def test_auto_and_cpu_mean_this_machine() -> None:
    assert resolve("auto", "task.yaml: target") == detect() == resolve("cpu", "x")


def test_a_gpu_is_found_by_name_with_or_without_its_kind() -> None:
    assert resolve("cuda:h200-sxm", "x") == resolve("H200-SXM", "x")
    assert resolve("h200-sxm", "x").architecture == "sm_90"


def test_the_detected_cpus_own_name_is_known() -> None:
    assert resolve(detect().name, "x") == detect()


def test_an_unknown_device_gets_one_line_that_helps() -> None:
    with pytest.raises(BadInput) as caught:
        resolve("h100", "task.yaml: target")
    line = str(caught.value)
    assert line.startswith('task.yaml: target: target "h100" is unknown') or '"h100"' in line
    assert 'Did you mean "h100-' in line
    assert "h200-sxm" in line
    assert "knowledge/devices/h100.toml" in line
    assert "\n" not in line


def test_cuda_without_a_gpu_is_bad_input() -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    with pytest.raises(BadInput, match="no NVIDIA GPU was found on this machine"):
        resolve("cuda", "task.yaml: target")


@pytest.mark.parametrize(
    "text", ["name = ", 'name = "x"\n', 'name = "y"\ntitle = "t"\nkind = "tpu"\n', "\x00"]
)
def test_a_broken_page_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(BadInput, match=r"x\.toml"):
        load_devices(tmp_path)
