"""What a kernel runs on: facts of a machine, from a data file or read off this machine.

GPUs are described in `knowledge/devices/*.toml`, with a source next to each number; the CPU is
detected. Nothing here measures anything or loads torch: what `tools.profile.measure_device` found
on this machine is kept in the user's cache, in the same form, and read from there.
"""

import difflib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

import psutil
from pydantic import Field, ValidationError

from knowledge.errors import BadInput
from knowledge.gpu import DriverFacts, ask_driver
from knowledge.opgraph import Frozen

DEVICES = Path(__file__).parent / "devices"
# Where Linux says what this process's container may take; "max", no number, where nothing is set.
CGROUP = Path("/sys/fs/cgroup")

# The flags that decide how a kernel is written; the full list is some hundred names long.
_TELLING_FLAGS = (
    "sse4_2", "avx", "fma", "f16c", "avx2", "avx_vnni", "avx512f", "avx512dq", "avx512bw",
    "avx512vl", "avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8",
    "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Figure(Frozen):
    """One number about a device and who states it."""

    value: float
    unit: str
    source: str


class Device(Frozen):
    """A machine's facts.

    `cores` counts the CPUs this process may run on (hardware threads), or the SMs of a GPU.
    `caches` holds bytes: `l1d`, `l2`, `l3` on a CPU; `l2`, `l1_per_sm`, `shared_per_sm`,
    `shared_per_block` and `registers_per_sm` on a GPU. `figures` are clocks, bandwidths and
    peaks; sparse peaks have a key of their own. `detected_as` are the names under which the
    vendor's driver reports the device. No backend prints for `hip`, whose pages are documents.
    """

    name: str
    title: str
    kind: Literal["cpu", "cuda", "hip"]
    architecture: str
    cores: int = Field(ge=1)
    memory_gib: float
    caches: dict[str, int] = Field({})
    vector_bits: int = 0
    features: tuple[str, ...] = ()
    figures: dict[str, Figure] = Field({})
    detected_as: tuple[str, ...] = ()
    page: str = ""


@cache
def load_devices(folder: Path = DEVICES) -> dict[str, Device]:
    """Every described device by its name, sorted.

    Raises:
        BadInput: a file that is not TOML, or does not say what a device's page must.
    """
    devices: dict[str, Device] = {}
    for path in sorted(folder.glob("*.toml")):
        page = f"{folder.name}/{path.name}"
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
            device = Device.model_validate({**raw, "page": page})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
            what = f"is not a device's page ({' '.join(str(error).split())[:200]})."
            raise BadInput(str(path), what) from error
        if device.name != path.stem:
            raise BadInput(
                str(path), f'is named "{device.name}" inside.', "Make the two names equal."
            )
        devices[device.name] = device
    return devices


def resolve(target: str, where: str) -> Device:
    """The device that a task or an option means.

    Args:
        target: `auto`, `cpu`, `cuda`, or a name from `knowledge/devices`, also with `cuda:`
            before it.
        where: the file and key that said so, for the message.

    Raises:
        BadInput: the name is unknown, or `cuda` was asked for and no NVIDIA GPU is present.
    """
    wanted = target.strip().lower()
    if wanted in ("auto", "cpu"):
        return detect()
    if wanted == "cuda":
        return _present_gpu(where)
    known = known_devices()
    name = wanted.removeprefix("cuda:")
    if name in known:
        return known[name]
    if wanted == (this := detect()).name:
        return this
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f'Did you mean "{near[0]}"? ' if near else ""
    listed = ", ".join(("auto", "cpu", "cuda", *known))
    raise BadInput(
        where,
        f'target "{target}" is unknown.',
        f"{hint}Known: {listed}. Or add knowledge/devices/{_slug(name) or 'name'}.toml.",
    )


def known_devices() -> dict[str, Device]:
    """Every described GPU, and those that were measured on this machine and have no page here."""
    shipped = load_devices()
    try:
        measured = load_devices.__wrapped__(cache_folder())
    except BadInput:
        measured = {}  # a cache that can't be read is as good as none
    return {**{name: one for name, one in measured.items() if one.kind == "cuda"}, **shipped}


def cache_folder() -> Path:
    """Where pages of measured devices are kept: the user's cache, which need not exist yet."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "kernelwright" / "devices"


def keep(device: Device) -> Path:
    """Write a measured device's page to the user's cache, whole or not at all."""
    lines = [
        f"{name} = {json.dumps(value)}"
        for name, value in device.model_dump(mode="json").items()
        if name not in ("caches", "figures", "page")
    ]
    lines += ["", "[caches] # bytes", *(f"{name} = {size}" for name, size in device.caches.items())]
    for name, figure in device.figures.items():
        lines += ["", f"[figures.{name}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in figure.model_dump().items()]
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{device.name}.toml"
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return part.replace(path)


def present_gpu() -> Device | None:
    """The NVIDIA GPU of this machine by its page; None where there is none, or it has no page."""
    names = tuple(gpu_names())
    found = (one for one in known_devices().values() if names and names[0] in one.detected_as)
    return next(found, None)


def describe_gpu(facts: DriverFacts) -> Device:
    """A GPU without a page, as far as its driver tells; peaks are left to measuring."""
    told = "the CUDA driver, when detected"
    figures = {
        "boost_clock": Figure(value=facts.clock_khz / 1e3, unit="MHz", source=told),
        "warps_per_sm": Figure(value=facts.threads_per_sm / 32, unit="warps", source=told),
        "blocks_per_sm": Figure(value=float(facts.blocks_per_sm), unit="blocks", source=told),
    }
    if facts.bandwidth_gbps:
        figures["bus_bandwidth"] = Figure(value=facts.bandwidth_gbps, unit="GB/s", source=told)
    return Device(
        name=_slug(facts.name.removeprefix("NVIDIA ").removeprefix("GeForce ")),
        title=facts.name,
        kind="cuda",
        architecture=f"sm_{facts.capability}",
        cores=facts.multiprocessors,
        memory_gib=round(facts.memory_bytes / 2**30, 1),
        caches={
            "l2": facts.l2_bytes,
            "l1_per_sm": facts.shared_per_sm,
            "shared_per_sm": facts.shared_per_sm,
            "shared_per_block": facts.shared_per_block,
            "registers_per_sm": facts.registers_per_sm,
        },
        figures=figures,
        detected_as=(facts.name,),
    )


def _present_gpu(where: str) -> Device:
    names = tuple(gpu_names())
    if not names:
        raise BadInput(
            where, "no NVIDIA GPU was found on this machine.", "Use cpu, auto or a device's name."
        )
    if (device := present_gpu()) is not None:
        return device
    raise BadInput(
        where,
        f'this machine\'s GPU, "{names[0]}", has no page yet.',
        "Measure it: python -m tools.profile.measure_device cuda. Or add "
        f"knowledge/devices/{_slug(names[0])}.toml with that name in `detected_as`.",
    )


def torch_is_for_gpus() -> bool:
    """Whether the torch that is installed can use an NVIDIA GPU, as its own version file says."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return False
    told = _read(Path(torch.origin).with_name("version.py"))
    # A build for the CPU alone has `cuda: Optional[str] = None` there.
    return re.search(r"^cuda\b[^=\n]*=\s*None", told, re.MULTILINE) is None


def gpu_names(root: Path = Path("/")) -> Iterator[str]:
    """The GPUs' names as the driver gives them, none where there is no driver."""
    pages = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    for page in pages:
        if found := re.search(r"^Model:\s*(.+?)\s*$", _read(page), re.MULTILINE):
            yield found.group(1)
    command = shutil.which("nvidia-smi")
    if pages:
        return
    if command is None:
        if (facts := ask_driver()) is not None:
            yield facts.name
        return
    try:
        told = subprocess.run(
            [command, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return  # the tool without a working driver: there is no GPU to use
    yield from (line.strip() for line in told.stdout.splitlines() if line.strip())


def detect(root: Path = Path("/")) -> Device:
    """The CPU of this machine, as far as the system tells.

    Linux tells most; elsewhere the name, core count and memory are known, and caches and
    features stay empty.

    Args:
        root: where `proc` and `sys` lie; another folder serves to describe another machine.
    """
    described = _cpuinfo(_read(root / "proc/cpuinfo"))
    flags = set((described.get("flags") or described.get("features") or "").split())
    machine = platform.machine().lower() or "unknown"
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    title = (
        described.get("model name") or described.get("hardware") or platform.processor() or machine
    )
    title = re.sub(r"\((R|TM|tm)\)|\bCPU\b|@.*$", " ", title)
    title = " ".join(title.split()) or machine
    vector_bits = _vector_bits(flags, root)
    figures = {}
    if mhz := re.fullmatch(r"[\d.]+", described.get("cpu mhz", "")):
        figures["clock"] = Figure(
            value=float(mhz.group()), unit="MHz", source="/proc/cpuinfo, when detected"
        )
    level = _level(flags, machine)
    # Clouds call processors of several generations by one name.
    name = "-".join(filter(None, (_slug(title), level, f"{cores}c")))
    if root == Path("/"):
        figures |= _measured(name)
    return Device(
        name=name,
        title=f"{title}, {cores} core{'s' if cores != 1 else ''}",
        kind="cpu",
        architecture=f"{machine.replace('x86_64', 'x86-64')} {level}".strip(),
        cores=cores,
        memory_gib=round(memory_bytes(root) / 2**30, 1),
        caches=_caches(root),
        vector_bits=vector_bits,
        features=tuple(flag for flag in _TELLING_FLAGS if flag in flags) + _page_policy(root),
        figures=figures,
    )


def _measured(name: str) -> dict[str, Figure]:
    """What was measured of this CPU before, if it ever was; its clock is read anew each time."""
    try:
        raw = tomllib.loads(_read(cache_folder() / f"{name}.toml"))
        figures = Device.model_validate(raw).figures if raw else {}
    except (tomllib.TOMLDecodeError, ValidationError):
        return {}
    return {key: figure for key, figure in figures.items() if key != "clock"}


def _cpuinfo(text: str) -> dict[str, str]:
    """The first processor's lines, keys in lower case."""
    described: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            described.setdefault(key.strip().lower(), value.strip())
    return described


def _level(flags: set[str], machine: str) -> str:
    """The widest vector extension, by the name people use for it."""
    for flag, level in (("avx512f", "avx512"), ("avx2", "avx2"), ("avx", "avx"), ("sve", "sve")):
        if flag in flags:
            return level
    return {"x86_64": "sse2", "aarch64": "neon"}.get(machine, "")


def _vector_bits(flags: set[str], root: Path) -> int:
    for flag, bits in (("avx512f", 512), ("avx2", 256), ("avx", 256)):
        if flag in flags:
            return bits
    length = _read(root / "proc/sys/abi/sve_default_vector_length").strip()
    return int(length) * 8 if "sve" in flags and length.isdigit() else 128


def _caches(root: Path) -> dict[str, int]:
    """Data and unified caches of the first CPU, in bytes."""
    caches: dict[str, int] = {}
    for index in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = _read(index / "level").strip(), _read(index / "type").strip()
        size = re.fullmatch(r"(\d+)([KMG]?)", _read(index / "size").strip())
        if size is None or kind == "Instruction":
            continue
        caches[f"l{level}d" if kind == "Data" else f"l{level}"] = (
            int(size.group(1)) * _UNITS[size.group(2)]
        )
    return caches


def memory_bytes(root: Path = Path("/")) -> int:
    """Memory this process may use: the machine's, or its control group's where that is less."""
    total = int(psutil.virtual_memory().total)
    limit = _read(root / "sys/fs/cgroup/memory.max").strip()
    return min(total, int(limit)) if limit.isdigit() else total


def free_memory_bytes(held: int = 0) -> int:
    """Memory that is free now, in a container's limits too.

    Args:
        held: bytes of it that count as free though somebody holds them.
    """
    free = int(psutil.virtual_memory().available) + held
    with suppress(OSError, ValueError):
        most, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        # Files that were read count as used, and are let go of when somebody needs the room.
        free = min(free, max(0, most - used + held + int(stat.get("inactive_file", 0))))
    return free


def _page_policy(root: Path) -> tuple[str, ...]:
    """The transparent huge page setting, e.g. `thp-madvise`: it prices large outputs."""
    setting = re.search(r"\[(\w+)\]", _read(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    return (f"thp-{setting.group(1)}",) if setting else ()


def _read(path: Path) -> str:
    """A small system file, empty where the system does not have it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
