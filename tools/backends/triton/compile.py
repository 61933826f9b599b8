"""Compile a candidate's Triton kernels ahead of time for devices that need not be there.

The candidate runs in a jailed child on tensors without data; here its report is read and set beside
the device's facts. What compiles is *compiled, not timed*: nothing here says how fast it is.
"""

from collections.abc import Sequence
from typing import Literal

from knowledge.device import Device
from knowledge.opgraph import Frozen
from tools.backends.jailed import ask_each
from tools.profile.occupancy import WARP, capability_of
from tools.profile.occupancy import occupancy as occupancy_of

SECONDS = 180.0
COMMAND = ("tools.backends.triton.child", "compiling")


class TensorCore(Frozen):
    """How many instructions for tensor cores the PTX has: Hopper's, everyone's, Blackwell's."""

    wgmma: int
    mma: int
    tcgen05: int


class CompiledKernel(Frozen):
    """What one kernel takes on one architecture; `capability` is 90 for sm_90.

    `warps` are those of a program; `shared_bytes` its shared memory.
    """

    function: str
    capability: int
    registers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    shared_bytes: int
    warps: int
    tensor_core: TensorCore


class Compiled(Frozen):
    """Every kernel that forward launches, once for each specialization and architecture."""

    kind: Literal["compiled"] = "compiled"
    kernels: tuple[CompiledKernel, ...]


class CompileError(Frozen):
    """A kernel that does not compile, or a forward that does not reach its launches.

    `line` is the candidate's, 0 where it is not known; `capability` is 0 where no target is to
    blame.
    """

    kind: Literal["compile_error"] = "compile_error"
    function: str
    line: int
    capability: int = 0
    message: str

    def told(self, path: str) -> str:
        """The error as a compiler prints it."""
        target = f" for sm_{self.capability}" if self.capability else ""
        return f"{path}:{self.line}: in {self.function}{target}: {self.message}"


class _Answer(Frozen):
    kernels: tuple[CompiledKernel, ...] = ()
    failure: CompileError | None = None


def compile_candidates(
    candidates: Sequence[tuple[str, str]], devices: Sequence[Device], seconds: float = SECONDS
) -> list[Compiled | CompileError]:
    """Compile candidates, each with the reference on whose inputs it runs, for some devices.

    All of them share one process, which costs seconds to start.
    """
    shared = {capability_of(device): device.caches["shared_per_block"] for device in devices}
    job = {
        "shared": shared,
        "candidates": [{"candidate": ours, "reference": theirs} for ours, theirs in candidates],
    }
    environment = {"TRITON_INTERPRET": "0"}
    answers = ask_each(COMMAND, job, _Answer, len(candidates), seconds, environment)
    if isinstance(answers, str):
        error = CompileError(function="forward", line=0, message=f"The compiler failed: {answers}.")
        return [error] * len(candidates)
    return [answer.failure or _within(answer.kernels, shared) for answer in answers]


def _within(kernels: tuple[CompiledKernel, ...], shared: dict[int, int]) -> Compiled | CompileError:
    """What compiled, unless a kernel takes more shared memory than its target has for a block."""
    for kernel in kernels:
        limit = shared[kernel.capability]
        if kernel.shared_bytes > limit:
            told = f"it takes {kernel.shared_bytes} bytes of shared memory, and there are {limit}"
            return CompileError(
                function=kernel.function, line=0, capability=kernel.capability, message=told
            )
    return Compiled(kernels=kernels)


def occupancy(kernel: CompiledKernel, device: Device) -> float:
    """The share of a multiprocessor's warps that can be resident at once, from 0 to 1."""
    threads = kernel.warps * WARP
    return occupancy_of(device, threads, kernel.registers, kernel.shared_bytes).share
