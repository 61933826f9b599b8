"""Runs printed CUDA C++ on the CPU: g++ compiles it with a shim in place of CUDA's threads."""

import ctypes
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from knowledge.emit_cuda import LOADER
from tests.patterns import workshop
from tests.patterns.workshop import Built

SHIM = Path(__file__).parent / "cuda_shim"
COMMAND = (
    "g++",
    "-std=c++17",
    "-O1",
    "-ffp-contract=off",
    "-shared",
    "-fPIC",
    "-w",
    "-U_FORTIFY_SOURCE",
)
KERNEL = re.compile(r'extern "C" __global__ void __launch_bounds__\([\d, ]+\) (\w+)\(\s*([^)]*)\)')
_folder = Path(tempfile.mkdtemp(prefix="kernelwright-cuda-"))
_libraries: dict[str, tuple[ctypes.CDLL, int]] = {}


class LaunchFailed(RuntimeError):
    """A kernel's threads wait for each other; the message says in which block."""


def _wrappers(source: str, unit: int) -> str:
    """For each kernel a C function that launches it: its shape, then its arguments as int64."""
    found = []
    for name, parameters in KERNEL.findall(source):
        kinds = [
            re.sub(r"(?:__restrict__)?\s*\w+$", "", one.strip()) for one in parameters.split(",")
        ]
        casts = [
            f"({kind})given[{n}]" if "*" in kind else f"given[{n}]" for n, kind in enumerate(kinds)
        ]
        found.append(
            f'extern "C" void launch_{name}_{unit}(const int64_t* shape, const int64_t* given, '
            f"char* told) {{\n"
            f"    launch(shape, [=] {{ {name}({', '.join(casts)}); }}, told);\n}}\n"
        )
    return "\n".join(found)


def prepare(sources: list[str]) -> None:
    """Compile several sources into one library: most of the time goes into the headers."""
    texts = []
    for number, source in enumerate(sources):
        body = source.replace('extern "C" __global__', "__global__")
        body = re.sub(r"^#(include|ifdef|else|endif|define).*\n|^typedef.*\n", "", body, flags=re.M)
        texts.append(f"namespace unit_{number} {{\n{body}\n{_wrappers(source, number)}}}\n")
    head = '#include "shim.h"\n#include <cuda_fp16.h>\n#include <cuda_bf16.h>\n'
    text = head + "\n".join(texts)
    stem = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = _folder / f"{stem}.cpp"
    path.write_text(text, encoding="utf-8")
    library = path.with_suffix(".so")
    done = subprocess.run(
        [*COMMAND, f"-I{SHIM}", str(path), "-o", str(library)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:4000]
    loaded = ctypes.CDLL(str(library))
    _libraries.update({source: (loaded, number) for number, source in enumerate(sources)})


def cuda_kernel(source: str, name: str, signature: str) -> Callable[..., None]:
    """What `tools.backends.cuda.loader.cuda_kernel` is on a machine with a GPU."""
    if source not in _libraries:
        prepare([source])
    library, unit = _libraries[source]
    function = getattr(library, f"launch_{name}_{unit}")

    def launch(grid: tuple[int, int], block: tuple[int, int], *given: torch.Tensor | int) -> None:
        assert len(given) == len(signature)
        for value, letter in zip(given, signature, strict=True):
            assert isinstance(value, torch.Tensor) == (letter == "p")
        numbers = [v.data_ptr() if isinstance(v, torch.Tensor) else v for v in given]
        shape = (ctypes.c_int64 * 4)(*grid, *block)
        told = ctypes.create_string_buffer(200)
        function(shape, (ctypes.c_int64 * max(1, len(numbers)))(*numbers), told)
        if told.value:
            raise LaunchFailed(told.value.decode())

    return launch


def on_cpu(built: Built) -> Built:
    """A candidate whose kernels the shim runs."""
    assert LOADER in built.source or "cuda_kernel" not in built.source
    here = "from tests.knowledge.cuda_host import cuda_kernel"
    return workshop.Built(
        built.model, built.inputs, built.graph, built.program, built.source.replace(LOADER, here)
    )


def sources_of(built: Built) -> list[str]:
    """The CUDA C++ of a candidate, one text a kernel."""
    kernels = built.program.kernels
    found = [re.search(r'_source = r"""\n(.*?)"""', kernel.source, re.S) for kernel in kernels]
    return ["\n" + match.group(1) for match in found if match is not None]
