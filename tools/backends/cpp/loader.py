"""Compile a C++ source string once and call it on torch tensors: plain C ABI through ctypes.

This file is written into every exported kernel, so it needs nothing but the standard library,
torch and a C++ compiler; torch's own headers would make each build a hundred times slower.
"""

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

# The order matters: torch brings an OpenMP runtime under the usual name, libgomp.so.1, and a
# library that asks for that name later gets the one that is already in the process. So a kernel
# runs on torch's own threads; loaded first, it would bring a second pool to fight for the cores.
import torch

# Without the define glibc does not declare the vector forms of expf and its kin. NaN and infinity
# keep their meaning, because references define results for them.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffast-math", "-fno-finite-math-only",
         "-D__FAST_MATH__=1", "-fopenmp", "-fPIC")  # fmt: skip
FEATURES = re.compile("model name|flags|Features")
ARGUMENT_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "d": ctypes.c_double}


class CompileError(RuntimeError):
    """The C++ source was refused; the message holds the command and what the compiler said."""


@functools.cache
def find_compiler() -> str:
    """The C++ compiler: $CXX, else the first of g++, clang++ and c++ that is on the path."""
    for name in filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++")):
        if found := shutil.which(name):
            return found
    raise CompileError("No C++ compiler was found. Install g++, or set CXX to the path of one.")


@functools.cache
def machine_identity() -> str:
    """What machine code depends on besides its source: the compiler's file, and the processor."""
    compiler, cpuinfo = Path(find_compiler()).resolve(), Path("/proc/cpuinfo")
    stat = compiler.stat()
    about = [platform.machine(), f"{compiler} {stat.st_size} {stat.st_mtime_ns}"]
    lines = set(cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
    return "\n".join(about + sorted(filter(FEATURES.match, lines)))


def library_name(source: str, flags: tuple[str, ...]) -> str:
    """The file name of the compiled source: a hash of all that could change the machine code."""
    text = "\0".join([source, *FLAGS, *flags, machine_identity()])
    return f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.so"


def build_commands(flags: tuple[str, ...]) -> list[list[str]]:
    """The commands that turn `kernel.cpp` into `kernel.so` in the working folder.

    Linking is a step of its own: given -ffast-math there, g++ adds start-up code that makes the
    loading thread flush denormal numbers to zero, in torch's own operators too.
    """
    wide = ["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []
    libraries = [flag for flag in flags if flag.startswith(("-l", "-L", "-Wl,"))]
    others = [flag for flag in flags if flag not in libraries]
    return [
        [find_compiler(), *FLAGS, *wide, *others, "-c", "kernel.cpp", "-o", "kernel.o"],
        [find_compiler(), "-shared", "-fopenmp", "kernel.o", "-o", "kernel.so", *libraries],
    ]


def cache_folder() -> Path:
    """Where compiled kernels are kept; a fresh temporary folder where no home can be written."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = home / "kernelwright" / "cpp"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.mkdtemp(prefix="kernelwright-cpp-"))


def find_or_compile(source: str, flags: tuple[str, ...]) -> Path:
    """The shared library of `source`, compiled unless an earlier process did; safe to race."""
    name = library_name(source, flags)
    prepared = os.environ.get("KERNELWRIGHT_CPP_CACHE")
    if prepared and Path(prepared, name).is_file():
        return Path(prepared, name)
    if (library := cache_folder() / name).is_file():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        Path(scratch, "kernel.cpp").write_text(source, encoding="utf-8")
        for command in build_commands(flags):
            done = subprocess.run(command, cwd=scratch, capture_output=True, check=False)
            if done.returncode != 0:
                said = (done.stdout + done.stderr).decode(errors="replace")
                raise CompileError(f"{' '.join(command)}\n{said}")
        return Path(scratch, "kernel.so").replace(library)


def cpp_kernel(
    source: str, name: str, signature: str, flags: tuple[str, ...] = ()
) -> Callable[..., None]:
    """The function `name` of a C++ source, which declares it extern "C" and void, as a callable.

    `signature` has one letter an argument: `p` is the data pointer of a CPU tensor, `i` an
    int64_t, `d` a double. A kernel sees no strides: hand over tensors laid out as it expects.
    """
    function = getattr(ctypes.CDLL(str(find_or_compile(source, flags))), name)
    function.argtypes = [ARGUMENT_TYPES[letter] for letter in signature]
    function.restype = None

    def launch(*arguments: torch.Tensor | int | float) -> None:
        function(*[a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments])

    return launch
