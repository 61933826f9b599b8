"""Where a task is judged: on this machine's CPU, or on its GPU. What differs between them is here.

Comparison, gauntlet, blocks, statistics and verdicts are the same for both.
"""

import contextlib
import fcntl
import importlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch

from knowledge.device import free_memory_bytes, known_devices, memory_bytes
from knowledge.errors import BadInput
from tools.backends.cpp.build import CppSource, extract_sources
from tools.backends.cuda.compile import CompileError, CudaSource, compile_sources
from tools.facts import ReferenceFacts, Roofline
from tools.judge.ceilings import measure_ceilings
from tools.judge.device_lane import DeviceLane, Waiting
from tools.judge.lane import Lane
from tools.judge.readings import Monitor
from tools.judge.rotation import Rotation, flush_bytes, plan_rotation
from tools.judge.runners import Runner
from tools.judge.wire import JudgeLimits
from tools.profile.roofline import measure_roofline
from tools.runner.accelerator import Precision, set_precision
from tools.task import Task
from tools.verdict import BuildFailed, DeviceReading

LEAST_MEMORY, MEMORY_PER_BYTE, MEMORY_SHARE = 4 << 30, 24, 0.75
# A CUDA context reserves more addresses than a machine has memory, so they can't be capped.
UNCAPPED = 1 << 62
# Of the judge's own work, one after the other, that have to come through in a moment.
SPARKS = 8
LOCK_SECONDS, LOCK_POLL_SECONDS = 900.0, 0.05


class Site(Protocol):
    """What a session asks of the place where it judges.

    `brittle`: after some failed calls a process can't use it any more.
    """

    device: torch.device
    brittle: bool

    def lane(self, runner: Runner, limits: JudgeLimits, reference_s: float) -> Lane:
        """The judge's hold on a runner here."""

    def synchronise(self) -> None:
        """Wait until the judge's own work is done."""

    def rotation(self, input_bytes: int, output_bytes: int, call_s: float) -> Rotation | None:
        """How input sets are used; None for the CPU's way."""

    def l2_bytes(self) -> int:
        """The cache that nothing outlives from one sample to the next; 0 where none is flushed."""

    def memory(self, needed: int) -> int:
        """Bytes that a runner may have, whose tensors take `needed`."""

    def free(self) -> int:
        """Bytes that are free where tensors lie."""

    def roofline(self, facts: ReferenceFacts) -> Roofline:
        """The ceilings here, for an op."""

    def turn(self) -> AbstractContextManager[None]:
        """While nobody else's judge measures on this device."""

    def reading(self) -> DeviceReading | None:
        """What the device says of its clocks; None where nobody tells."""

    def build(self, source: str, cache: Path) -> BuildFailed | None:
        """Compile what a candidate has for this device; None where nothing is wrong."""


class Host:
    """The CPU."""

    device = torch.device("cpu")
    brittle = False

    def lane(self, runner: Runner, limits: JudgeLimits, reference_s: float) -> Lane:
        """As the protocol has it."""
        return Lane(runner, limits, reference_s)

    def synchronise(self) -> None:
        """Nothing is ever under way."""

    def rotation(self, input_bytes: int, output_bytes: int, call_s: float) -> Rotation | None:
        """None: see `pool`."""
        return None

    def l2_bytes(self) -> int:
        """Caches here are not flushed."""
        return 0

    def memory(self, needed: int) -> int:
        """Plenty for an honest kernel, and not the machine."""
        most = int(memory_bytes() * MEMORY_SHARE)
        return int(min(max(LEAST_MEMORY, MEMORY_PER_BYTE * needed), most))

    def free(self) -> int:
        """As the protocol has it."""
        return free_memory_bytes()

    def roofline(self, facts: ReferenceFacts) -> Roofline:
        """As the protocol has it."""
        return measure_roofline(facts)

    def turn(self) -> AbstractContextManager[None]:
        """Interleaving is what stands against neighbours here."""
        return contextlib.nullcontext()

    def reading(self) -> DeviceReading | None:
        """None."""
        return None

    def build(self, source: str, cache: Path) -> BuildFailed | None:
        """None: its C++ is compiled for every site."""
        return None


class Gpu(Waiting):
    """The current CUDA device, with a context in the judge's own process.

    Args:
        precision: of float32 products. The judge's own reference is strict in any case.
    """

    brittle = True

    def __init__(self, precision: Precision) -> None:
        set_precision("strict")
        torch.cuda.init()  # type: ignore[no-untyped-call]
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._precision = precision
        self._properties = torch.cuda.get_device_properties(self.device)
        self._cache = torch.zeros(
            flush_bytes(self.l2_bytes()), dtype=torch.uint8, device=self.device
        )
        self._spark = torch.zeros(1, device=self.device)
        self._monitor = Monitor(self.uuid)

    @property
    def uuid(self) -> str:
        """Which one of all devices in the world it is."""
        return str(getattr(self._properties, "uuid", "unknown"))

    def lane(self, runner: Runner, limits: JudgeLimits, reference_s: float) -> Lane:
        """As the protocol has it."""
        # torch keeps what the exam has freed, and a runner can't have it.
        torch.cuda.empty_cache()
        return DeviceLane(runner, limits, reference_s, self, self._precision)

    def synchronise(self) -> None:
        """As the protocol has it."""
        torch.cuda.synchronize(self.device)

    def flush(self) -> None:
        """Write more than the cache holds."""
        self._cache.add_(1)

    def moment_ns(self) -> float:
        """As `Waiting` has it: long, where a stopped process still has the device at work.

        Contexts of several processes take turns; each wait lets one that lingers in again.
        """
        began = time.perf_counter_ns()
        for _ in range(SPARKS):
            self._spark.zero_()
            self.synchronise()
        return float(time.perf_counter_ns() - began)

    def rotation(self, input_bytes: int, output_bytes: int, call_s: float) -> Rotation | None:
        """As the protocol has it."""
        memory = int(self._properties.total_memory)
        return plan_rotation(input_bytes, output_bytes, call_s, memory)

    def l2_bytes(self) -> int:
        """As the protocol has it."""
        return int(getattr(self._properties, "L2_cache_size", 0))

    def memory(self, needed: int) -> int:
        """No cap: the device's own is what there is."""
        return UNCAPPED

    def free(self) -> int:
        """As the protocol has it."""
        return int(torch.cuda.mem_get_info(self.device)[0])

    def roofline(self, facts: ReferenceFacts) -> Roofline:
        """As the protocol has it."""
        return measure_ceilings(facts, self.device)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """As the protocol has it.

        Raises:
            TimeoutError: another judge keeps the device for a quarter of an hour.
        """
        with device_lock(self.uuid):
            yield

    def reading(self) -> DeviceReading | None:
        """As the protocol has it."""
        return self._monitor.read()

    def build(self, source: str, cache: Path) -> BuildFailed | None:
        """CUDA C++, whose machine code the runner then finds in the cache."""
        texts = extract_sources(source, "cuda_kernel")
        if not texts:
            return None
        major, minor = torch.cuda.get_device_capability(self.device)
        return compile_cuda(texts, f"sm_{major}{minor}", cache)


def compile_cuda(texts: Sequence[CppSource], architecture: str, cache: Path) -> BuildFailed | None:
    """Compile CUDA C++ in a jail, and keep the machine code where the loader looks for it."""
    sources = [CudaSource(source=one.source, flags=one.flags) for one in texts]
    for one, (answer,) in zip(sources, compile_sources(sources, [architecture]), strict=True):
        if isinstance(answer, CompileError):
            return BuildFailed(log=answer.told())
        try:
            loader = importlib.import_module("tools.backends.cuda.loader")
        except ImportError:
            continue  # without cuda-python the runner will say so
        name = loader.cubin_name(one.source, architecture, one.flags)
        (cache / name).write_bytes(answer.cubin)
    return None


@contextlib.contextmanager
def device_lock(uuid: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a device for measuring; the kernel lets go of the lock with the process that holds it.

    Raises:
        TimeoutError: somebody else holds it for longer than this.
    """
    # The judge's own temporary folder is another one for each session.
    folder = Path(os.environ.get("TMPDIR") or os.environ.get("TEMP") or "/tmp")
    folder = folder if folder.is_absolute() and folder.is_dir() else Path("/tmp")
    path = folder / f"kernelwright-{uuid}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"another judge has held the GPU for {seconds:g} s"
                    ) from None
                time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def site_of(task: Task) -> Site:
    """Where a task is judged.

    On the GPU where it asks for `cuda`, for a device by the present one's name, or for nothing in
    particular while there is one; but kernels in C++ are the CPU's.

    Raises:
        BadInput: it asks for a GPU, and torch finds none.
    """
    if not wants_gpu(task, gpu_name()):
        return Host()
    if not torch.cuda.is_available():
        raise BadInput(
            "task: target", "torch finds no CUDA device on this machine.",
            "Use cpu, or a device's name, for which kernels are compiled ahead of time.",
        )  # fmt: skip
    return Gpu(task.precision)


def gpu_name() -> str:
    """The present GPU's name as its driver gives it; empty where torch finds none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def wants_gpu(task: Task, present: str) -> bool:
    """Whether a task is for the GPU of this machine, which has this name, or none."""
    wanted = task.target.strip().lower()
    if wanted == "cuda":
        return True
    if not present or wanted == "cpu" or task.backend == "cpp":
        return False
    if wanted == "auto":
        return True
    named = known_devices().get(wanted.removeprefix("cuda:"))
    return named is not None and present in named.detected_as
