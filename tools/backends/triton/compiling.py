"""In the child: every launch of a candidate's forward compiled for each target, with no driver.

Forward runs on tensors without data. Triton is given a driver that names the target, and a launch
stops where the machine code is there, so that signatures, constants and alignments are the call's.
"""

import ast
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.compiler.errors import CompilationError
from triton.runtime import driver
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

from tools.backends.triton.child import (
    CANDIDATE,
    constructor_arguments,
    load,
    map_tensors,
    place_of,
    told,
)

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
MOST_CONFIGS = 4
TENSOR_CORE = {
    "wgmma": re.compile(r"\bwgmma\.mma_async"),
    "mma": re.compile(r"\bmma\.sync"),
    "tcgen05": re.compile(r"\btcgen05\.mma"),
}
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")


class Target:
    """Stands in for the driver: the device's number is its compute capability, as in 90."""

    def __init__(self, shared_per_block: dict[int, int]) -> None:
        self.shared, self.capability = shared_per_block, 0

    @property
    def utils(self) -> "Target":
        """The part of a driver that knows devices."""
        return self

    def get_device_properties(self, device: int) -> dict[str, int]:
        """What Triton's passes ask of a device."""
        return {"max_shared_mem": self.shared[device]}

    def get_current_device(self) -> int:
        """The key under which Triton caches what it compiled."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        """Nothing is launched, so any number will do."""
        return device * 0

    def get_current_target(self) -> GPUTarget:
        """What code is generated for."""
        return GPUTarget("cuda", self.capability, 32)

    def get_active_torch_device(self) -> torch.device:
        """Where a kernel's tensors would lie."""
        return torch.device("cuda", 0)


class Failed(Exception):
    """A kernel does not compile; `answer` says which, where and why."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["message"])
        self.answer = answer


class Recorder:
    """Takes the place of launches, and keeps what was compiled for them."""

    def __init__(self, target: Target) -> None:
        self.source, self.target = "", target
        self.found: dict[tuple[str, int, str], dict[str, Any]] = {}
        self.launch: Callable[..., Any] = JITFunction.run

    def start(self, source: str) -> None:
        """Forget what was recorded; the next launches are this candidate's."""
        self.source, self.found = source, {}

    def install(self) -> None:
        """From now on launches compile, and autotuners try their first configurations."""
        recorder = self

        def run(fn: Any, *args: Any, grid: Any, warmup: bool = True, **kwargs: Any) -> Any:
            return recorder.record(fn, args, grid, kwargs)

        def run_configs(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            made = None
            for config in tuner.configs[:MOST_CONFIGS]:
                made = tuner.fn.run(*args, **{**kwargs, **config.all_kwargs()})
            return made

        JITFunction.run = run
        Autotuner.run = run_configs

    def record(self, fn: Any, args: tuple[Any, ...], grid: Any, kwargs: dict[str, Any]) -> Any:
        """Compile one launch for every target."""
        given = [_mock(value) for value in args]
        named = {name: _mock(value) for name, value in kwargs.items()}
        made = None
        for capability in self.target.shared:
            self.target.capability = capability
            try:
                made = self.launch(fn, *given, grid=grid, warmup=True, **named)
            except Exception as error:
                raise Failed(_failure(error, fn, capability, self.source)) from error
            key = (fn.__name__, capability, str(getattr(made, "hash", len(self.found))))
            if key not in self.found:
                self.found[key] = _measured(fn.__name__, capability, made)
        return made


class Argument:
    """What Triton reads of a tensor that a kernel is handed: one that is aligned to 16 bytes."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.dtype, self.shape = tensor.dtype, tensor.shape

    @staticmethod
    def data_ptr() -> int:
        """An address that every alignment divides, as those of fresh tensors."""
        return 0

    @staticmethod
    def ptr_range() -> int:
        """The size of its storage, which matters to AMD's GPUs alone."""
        return 0


def _mock(value: Any) -> Any:
    return Argument(value) if isinstance(value, torch.Tensor) else value


def _failure(error: BaseException, fn: Any, capability: int, source: str) -> dict[str, Any]:
    """Where in the candidate's file a kernel went wrong: the innermost place that Triton names."""
    function, line, message = fn.__name__, _lines(source).get(fn.__name__, 0), told(error)
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, CompilationError):
            named = re.search(r"def\s+(\w+)", seen.src or "")
            start = _lines(source).get(named.group(1), 0) if named else 0
            if start:
                function, line = named.group(1) if named else function, start
                line += getattr(seen.node, "lineno", 1) - 1
            message = seen.error_message or told(seen.__cause__ or seen)
        seen = seen.__cause__
    return {"function": function, "line": line, "capability": capability, "message": message}


def _lines(source: str) -> dict[str, int]:
    """The line of each function's `def`."""
    tree = ast.parse(source)
    return {n.name: n.lineno for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


def _measured(name: str, capability: int, made: Any) -> dict[str, Any]:
    """What the machine code of one kernel takes."""
    ptx = made.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(made.asm["cubin"])
        usage = _output([str(TOOLS / "cuobjdump"), "-res-usage", str(cubin)])
        text = Path(folder) / "kernel.ptx"
        text.write_text(ptx, encoding="utf-8")
        spilled = _spills(ptx, text) if int(_field(usage, "STACK")) else (0, 0)
    return {
        "function": name,
        "capability": capability,
        "registers": int(_field(usage, "REG")),
        "stack_bytes": int(_field(usage, "STACK")),
        "spill_store_bytes": spilled[0],
        "spill_load_bytes": spilled[1],
        "shared_bytes": int(made.metadata.shared),
        "warps": int(made.metadata.num_warps),
        "tensor_core": {what: len(found.findall(ptx)) for what, found in TENSOR_CORE.items()},
    }


def _spills(ptx: str, path: Path) -> tuple[int, int]:
    """Bytes that are stored and loaded again for want of registers."""
    architecture = re.search(r"\.target\s+(\w+)", ptx)
    assert architecture is not None
    # Of the two assemblers that come with Triton, the plain one may refuse its newest PTX.
    for assembler in ("ptxas-blackwell", "ptxas"):
        command = [str(TOOLS / assembler), "-v", f"-arch={architecture.group(1)}", str(path)]
        output = str(path.with_suffix(".out"))
        if (TOOLS / assembler).exists() and (
            found := _SPILLS.findall(_output([*command, "-o", output]))
        ):
            return sum(int(a) for a, _ in found), sum(int(b) for _, b in found)
    return 0, 0


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _field(usage: str, name: str) -> str:
    """A kernel's line reads `REG:32 STACK:0 SHARED:1024 LOCAL:0 ...`."""
    found = re.search(rf"\b{name}:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump does not tell {name}: {usage[:200]}")
    return found.group(1)


def _run_forward(candidate: ModuleType, reference: ModuleType, device: str) -> None:
    """Forward on tensors without data that claim to lie on `device`."""
    with FakeTensorMode(), torch.no_grad():
        arguments = constructor_arguments(reference)
        model = candidate.ModelNew(*arguments)
        inputs = list(reference.get_inputs())
        if device != "cpu":
            for module in model.modules():
                for held in (module._parameters, module._buffers):
                    moved = {k: _claimed(v, device) for k, v in held.items() if v is not None}
                    held.update(moved)
            inputs = map_tensors(lambda tensor: _claimed(tensor, device), inputs)
        model(*inputs)


def _claimed(tensor: torch.Tensor, device: str) -> torch.Tensor:
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    parameter = isinstance(tensor, torch.nn.Parameter)
    return torch.nn.Parameter(made, requires_grad=False) if parameter else made


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """For each of `candidates`, the kernels that its forward launches, for each target of `shared`.

    A candidate comes with its `reference`, for whose inputs and weights it is compiled.
    """
    target = Target({int(name): size for name, size in job["shared"].items()})
    driver.set_active(target)
    recorder = Recorder(target)
    recorder.install()
    return {"answers": [_compiled(one, recorder) for one in job["candidates"]]}


def _compiled(one: dict[str, str], recorder: Recorder) -> dict[str, Any]:
    recorder.start(one["candidate"])
    candidate: ModuleType | None = None
    failure: dict[str, Any] = {}
    # A build of torch without CUDA does most of what it must with tensors that claim to be there,
    # but not all; on the CPU the launches are the same.
    for device in ("cuda", "cpu"):
        try:
            candidate = candidate or load(one["candidate"], CANDIDATE)
            _run_forward(candidate, load(one["reference"], "reference"), device)
        except Failed as failed:
            return {"failure": failed.answer}
        except Exception as error:  # noqa: BLE001 - a candidate may raise anything
            failure = {"function": "forward", "line": place_of(error), "message": told(error)}
        else:
            return {"kernels": list(recorder.found.values())}
    return {"failure": failure}
