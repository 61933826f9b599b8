"""Compile CUDA C++ once and launch it on torch tensors: NVRTC and the driver, through cuda-python.

This file is written into every exported kernel, so it needs nothing but the standard library, torch
and cuda-python. NVRTC takes a tenth of a second, torch's extension builder half a minute.
"""

import ctypes
import functools
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

try:
    from cuda.bindings import driver, nvrtc
except ImportError as error:
    raise ImportError(
        "CUDA C++ needs cuda-python and the compiler: pip install cuda-python nvidia-cuda-nvrtc "
        "nvidia-cuda-runtime nvidia-cuda-crt"
    ) from error

FLAGS = ("--std=c++17", "--ptxas-options=-v")
ARGUMENT_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "d": ctypes.c_double}
# Without asking for more, a block gets this much dynamic shared memory.
PLAIN_SHARED_BYTES = 48 << 10


class CompileError(RuntimeError):
    """The CUDA C++ was refused; the message is what the compiler said."""


def include_folders() -> list[str]:
    """Folders with CUDA's headers: of NVIDIA's packages, then of an installed toolkit."""
    found = importlib.util.find_spec("nvidia")
    roots = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    folders = [
        header.parent for root in roots for header in sorted(root.glob("*/include/*_fp16.h"))
    ]
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    folders += [Path(home, "include") for home in homes if home]
    # From CUDA 13 on, what cooperative_groups.h includes lies one folder deeper.
    folders += [folder / "cccl" for folder in folders]
    return [str(folder) for folder in folders if folder.is_dir()]


def compile_cubin(source: str, architecture: str, flags: tuple[str, ...] = ()) -> tuple[bytes, str]:
    """Machine code for one architecture, such as sm_90, and what the compiler noted.

    Raises:
        CompileError: the source is wrong, or the compiler or the headers are missing.
    """
    folders = [f"--include-path={folder}" for folder in include_folders()]
    options = [*FLAGS, f"--gpu-architecture={architecture}", *folders, *flags]
    try:
        status, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, None, None)
    except RuntimeError as missing:  # cuda-python finds no libnvrtc
        raise CompileError(
            f"NVRTC was not found: pip install nvidia-cuda-nvrtc. ({missing})"
        ) from missing
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompileError(f"NVRTC did not start: {status.name}")
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
        log = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program), "the log"))
        _checked(nvrtc.nvrtcGetProgramLog(program, log), "the log")
        said = log.decode(errors="replace").strip("\0\n ")
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            if "cannot open source file" in said:
                more = " nvidia-cuda-cccl" if '"cuda/std' in said else ""
                said += f"\nCUDA's headers: pip install nvidia-cuda-runtime nvidia-cuda-crt{more}"
            raise CompileError(said or f"NVRTC refused {' '.join(options)}: {status.name}")
        cubin = bytearray(_checked(nvrtc.nvrtcGetCUBINSize(program), "the machine code"))
        _checked(nvrtc.nvrtcGetCUBIN(program, cubin), "the machine code")
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return bytes(cubin), said


def _checked(result: tuple[Any, ...], what: str) -> Any:
    """What a call of NVRTC or the driver gave besides its status.

    Raises:
        RuntimeError: the call failed.
    """
    status, *values = result
    if int(status) != 0:
        raise RuntimeError(f"{what}: {status.name}")
    return values[0] if values else None


def cubin_name(source: str, architecture: str, flags: tuple[str, ...] = ()) -> str:
    """The file name of the compiled source: a hash of all that could change the machine code."""
    _, major, minor = nvrtc.nvrtcVersion()
    text = "\0".join([source, *FLAGS, *flags, architecture, f"{major}.{minor}"])
    return f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.cubin"


def cache_folder() -> Path | None:
    """Where machine code is kept; None where no home can be written."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = home / "kernelwright" / "cuda"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def find_or_compile(source: str, architecture: str, flags: tuple[str, ...] = ()) -> bytes:
    """The machine code of `source`, compiled unless an earlier process did; safe to race."""
    name, folder = cubin_name(source, architecture, flags), cache_folder()
    prepared = os.environ.get("KERNELWRIGHT_CUDA_CACHE")
    for place in (prepared, folder):
        if place and Path(place, name).is_file():
            return Path(place, name).read_bytes()
    cubin, _ = compile_cubin(source, architecture, flags)
    if folder is not None:
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as fresh:
            fresh.write(cubin)
        Path(fresh.name).replace(folder / name)
    return cubin


@functools.cache
def load_module(
    source: str, device: int, flags: tuple[str, ...], cubin: bytes | None
) -> driver.CUmodule:
    """The compiled source in the memory of a device, whose context is the current one."""
    major, minor = torch.cuda.get_device_capability(device)
    image = cubin or find_or_compile(source, f"sm_{major}{minor}", flags)
    return _checked(driver.cuModuleLoadData(image), f"loading machine code for sm_{major}{minor}")


def find_function(module: driver.CUmodule, name: str, shared: int) -> driver.CUfunction:
    """A kernel of a module, allowed to be launched with so much dynamic shared memory."""
    found = _checked(driver.cuModuleGetFunction(module, name.encode()), name)
    if shared > PLAIN_SHARED_BYTES:
        limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(found, limit, shared), f"{name}, {shared} bytes")
    return found


def cuda_kernel(
    source: str,
    name: str,
    signature: str,
    flags: tuple[str, ...] = (),
    cubin: bytes | None = None,
) -> Callable[..., None]:
    """The kernel `name` of a CUDA C++ source, which declares it extern "C", as a callable.

    `signature` has one letter an argument: `p` is the data pointer of a CUDA tensor, `i` an
    int64_t, `d` a double. It is called with the grid and the block, (x, y) or (x, y, z) each, then
    the arguments; `shared` are bytes of dynamic shared memory. A `cooperative` launch may wait for
    all of its blocks (grid.sync()), so no more of them than `resident_blocks` says. It runs on the
    device of its first tensor, on torch's current stream there. A kernel sees no strides: hand over
    tensors laid out as it expects. `cubin` is machine code that takes the compiler's place.
    """
    types = tuple(ARGUMENT_TYPES[letter] for letter in signature)

    @functools.cache
    def function(device: int, shared: int) -> driver.CUfunction:
        module = load_module(source, device, flags, cubin)
        return find_function(module, name, shared)

    def launch(
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: torch.Tensor | int | float,
        shared: int = 0,
        cooperative: bool = False,
    ) -> None:
        if 0 in grid:
            return  # a tensor without elements: there is nothing to do
        device = next(a for a in arguments if isinstance(a, torch.Tensor)).get_device()
        values = tuple(a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments)
        x, y, z = (*grid, 1, 1)[:3]
        columns, rows, layers = (*block, 1, 1)[:3]
        with torch.cuda.device(device):
            stream = torch.cuda.current_stream(device).cuda_stream
            start = driver.cuLaunchCooperativeKernel if cooperative else driver.cuLaunchKernel
            sizes = (x, y, z, columns, rows, layers, shared, stream, (values, types))
            # Only the plain launch takes further options, of which there are none.
            extra = () if cooperative else (0,)
            _checked(start(function(device, shared), *sizes, *extra), name)

    return launch


def resident_blocks(
    source: str, name: str, threads: int, shared: int = 0, flags: tuple[str, ...] = ()
) -> int:
    """How many blocks of a kernel the current device holds at once: `cooperative`'s most."""
    properties = torch.cuda.get_device_properties()
    torch.cuda.current_stream().synchronize()  # the device's context is current from here on
    module = load_module(source, torch.cuda.current_device(), flags, None)
    each = _checked(
        driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(
            find_function(module, name, shared), threads, shared
        ),
        name,
    )
    return int(each) * int(properties.multi_processor_count)
