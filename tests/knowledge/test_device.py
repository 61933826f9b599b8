"""Devices: what a machine is, read off its files or its page."""

import re
from pathlib import Path

import pytest

from knowledge.device import Device, detect, load_devices, resolve
from knowledge.errors import BadInput
from tools.profile.occupancy import occupancy
from tools.task import InputSpec, Task, language_of

EXPECTED = {
    "a10", "a100-pcie-40gb", "a100-pcie-80gb", "a100-sxm4-40gb", "a100-sxm4-80gb", "a40", "b200",
    "gh200", "h100-nvl", "h100-pcie", "h100-sxm5", "h200-sxm", "l4", "l40s", "mi300x", "rtx-3090",
    "rtx-4090", "rtx-5090", "t4", "v100-sxm2",
}  # fmt: skip
NVIDIA = sorted(EXPECTED - {"mi300x"})
# Floating-point operations (two a multiply-add) of one multiprocessor in one clock, dense, by the
# architecture whitepapers; GeForce does half of its bf16 where it accumulates in fp32.
RATES = {
    "sm_70": {"fp32": 128, "fp16": 1024},
    "sm_75": {"fp32": 128, "fp16": 1024},
    "sm_80": {"fp32": 128, "fp64": 64, "fp64_tensor": 128, "tf32": 1024, "bf16": 2048,
              "fp16": 2048},
    "sm_86": {"fp32": 256, "tf32": 512, "bf16": 1024, "fp16": 1024},
    "sm_89": {"fp32": 256, "tf32": 512, "bf16": 1024, "fp16": 1024, "fp8": 2048},
    "sm_90": {"fp32": 256, "fp64": 128, "fp64_tensor": 256, "tf32": 2048, "bf16": 4096,
              "fp16": 4096, "fp8": 8192},
    "sm_100": {"fp32": 256, "fp64": 128, "tf32": 4096, "bf16": 8192, "fp16": 8192, "fp8": 16384},
    "sm_120": {"fp32": 256, "tf32": 512, "bf16": 1024, "fp16": 1024, "fp8": 2048},
}  # fmt: skip
# The tensor peaks of these datasheets are stated at a clock that the cards' power allows.
STATED_BY_POWER = {"h100-nvl": 0.85}


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
    assert re.fullmatch(r"amd-epyc-7b13-avx2-\d+c", device.name)
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
    assert device.page == f"devices/{name}.toml"
    assert device.detected_as
    assert all(figure.source and figure.unit for figure in device.figures.values())
    assert 200 <= device.figures["memory_bandwidth"].value <= 9000
    assert {"l2", "l1_per_sm", "shared_per_sm", "shared_per_block", "registers_per_sm"} <= set(
        device.caches
    )
    assert device.caches["shared_per_block"] <= device.caches["shared_per_sm"]
    for key, figure in device.figures.items():
        if key.endswith("_sparse"):
            dense = device.figures[key.removesuffix("_sparse")]
            assert figure.value / dense.value == pytest.approx(2.0, rel=0.025)


@pytest.mark.parametrize("name", NVIDIA)
def test_a_gpus_page_has_what_occupancy_and_roofline_are_reckoned_from(name: str) -> None:
    device = load_devices()[name]
    assert device.kind == "cuda"
    assert {"fp32", "memory_bandwidth", "boost_clock"} <= set(device.figures)
    assert occupancy(device, 256, 32, 0).share == 1.0
    for feature in {"tf32", "bf16", "fp16", "fp8", "fp4", "int8"} & set(device.features):
        assert feature in device.figures


@pytest.mark.parametrize("name", NVIDIA)
def test_peaks_follow_from_multiprocessors_clock_and_width(name: str) -> None:
    device = load_devices()[name]
    boost = device.figures["boost_clock"].value
    tensor = device.figures.get("tensor_clock", device.figures["boost_clock"]).value
    half = 0.5 if name.startswith("rtx") else 1.0
    for key, rate in RATES[device.architecture].items():
        if key not in device.figures:
            continue
        plain = key in ("fp32", "fp64", "fp64_tensor")
        reckoned = device.cores * rate * (boost if plain else tensor) / 1e6 * (1 if plain else half)
        share = device.figures[key].value / reckoned
        least = 1.0 if plain else STATED_BY_POWER.get(name, 1.0)
        # The vendor rounds, and states some tensor peaks at a lower clock than the maximum.
        assert least - 0.08 <= share <= 1.03, (key, share)


def test_the_three_figures_that_go_round_for_an_h100_are_three_things() -> None:
    """Dense SXM5, dense PCIe, and SXM5 with sparsity: each under its own name."""
    known = load_devices()
    assert known["h100-sxm5"].figures["bf16"].value == pytest.approx(989, rel=0.001)
    assert known["h100-pcie"].figures["bf16"].value == pytest.approx(756, rel=0.001)
    assert known["h100-sxm5"].figures["bf16_sparse"].value == pytest.approx(1979, rel=0.001)


def test_no_driver_reports_two_pages_under_one_name() -> None:
    names = [name for device in load_devices().values() for name in device.detected_as]
    assert len(names) == len(set(names))


def test_a_device_that_no_backend_prints_for_is_refused_as_a_target() -> None:
    task = Task(name="x", op="torch.relu", inputs=(InputSpec(shape=(4, 4)),), target="mi300x")
    with pytest.raises(BadInput, match="no backend prints kernels for AMD Instinct MI300X"):
        language_of(task, resolve("mi300x", "x"), "task")


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
