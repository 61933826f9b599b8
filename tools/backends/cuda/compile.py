"""Compile CUDA C++ ahead of time for devices that need not be there, and tell what it takes.

NVRTC runs in a jailed child with a deadline. What compiles is *compiled, not timed*: nothing here
says how fast it is.
"""

import base64
import re
from collections.abc import Sequence
from typing import Literal

from knowledge.opgraph import Frozen
from tools.backends.jailed import ask

SECONDS = 120.0
MEMORY = 16 << 30
COMMAND = ("tools.backends.cuda.child",)
LOG_LIMIT = 4000

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+\w?)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(.*)")
_SHARED = re.compile(r"(\d+) bytes smem")
_ERROR = re.compile(r"^kernel\.cu\((\d+)\): (?:catastrophic )?error: (.*)$", re.MULTILINE)


class CompiledKernel(Frozen):
    """What one kernel takes on one architecture, such as sm_90, by the assembler's own account.

    `threads` is the largest block that it was compiled for (`__launch_bounds__`), 0 where the
    source does not say; `shared_bytes` are those it declares.
    """

    function: str
    architecture: str
    registers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    shared_bytes: int
    threads: int = 0


class Compiled(Frozen):
    """The machine code of one source for one architecture, and what its kernels take."""

    kind: Literal["compiled"] = "compiled"
    architecture: str
    cubin: bytes
    kernels: tuple[CompiledKernel, ...]


class CompileError(Frozen):
    """A source that does not compile: where, that line's text, and what the compiler said.

    `line` is 0 where no line is to blame: no compiler, a crash, the deadline.
    """

    kind: Literal["compile_error"] = "compile_error"
    architecture: str
    line: int
    source_line: str
    message: str

    def told(self, path: str = "kernel.cu") -> str:
        """The error as a compiler prints it."""
        if not self.line:
            return f"{path}: for {self.architecture}: {self.message}"
        return f"{path}:{self.line}: for {self.architecture}: {self.message}\n{self.source_line}"


class CudaSource(Frozen):
    """One translation unit, and options for NVRTC besides the architecture."""

    source: str
    flags: tuple[str, ...] = ()


def compile_sources(
    sources: Sequence[CudaSource], architectures: Sequence[str], seconds: float = SECONDS
) -> list[list[Compiled | CompileError]]:
    """Compile each source for each architecture: one list a source, in order.

    All share one process, which costs seconds to start.
    """
    job = {
        "sources": [[one.source, list(one.flags)] for one in sources],
        "architectures": list(architectures),
    }
    answers = _ask(job, len(sources) * len(architectures), seconds)
    found: list[list[Compiled | CompileError]] = []
    for position, one in enumerate(sources):
        row: list[Compiled | CompileError] = []
        for number, architecture in enumerate(architectures):
            if isinstance(answers, str):
                row.append(_failed(architecture, answers))
            else:
                answer = answers[position * len(architectures) + number]
                row.append(_outcome(one.source, architecture, answer))
        found.append(row)
    return found


def _failed(architecture: str, reason: str) -> CompileError:
    return CompileError(architecture=architecture, line=0, source_line="", message=reason)


def _outcome(source: str, architecture: str, answer: dict[str, str]) -> Compiled | CompileError:
    if "cubin" not in answer:
        return _refused(source, architecture, answer.get("error", "it gave no answer"))
    return Compiled(
        architecture=architecture,
        cubin=base64.b64decode(answer["cubin"]),
        kernels=read_usage(answer.get("log", ""), source),
    )


def _refused(source: str, architecture: str, said: str) -> CompileError:
    found = _ERROR.search(said)
    if found is None:
        return _failed(architecture, said[:LOG_LIMIT])
    line, lines = int(found.group(1)), source.splitlines()
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    hint = "".join(f" ({last})" for last in said.splitlines()[-1:] if "pip install" in last)
    return CompileError(
        architecture=architecture, line=line, source_line=text, message=found.group(2) + hint
    )


def read_usage(log: str, source: str) -> tuple[CompiledKernel, ...]:
    """What `ptxas -v` says of each kernel in a log."""
    found = []
    sections = _ENTRY.split(log)
    for function, architecture, text in zip(
        sections[1::3], sections[2::3], sections[3::3], strict=True
    ):
        spills, used = _SPILLS.search(text), _USED.search(text)
        if used is None:
            continue
        shared = _SHARED.search(used.group(2))
        bounds = re.search(rf"__launch_bounds__\((\d+)[^)]*\)\s+{function}\(", source)
        stack, stores, loads = (int(n) for n in spills.groups()) if spills else (0, 0, 0)
        found.append(
            CompiledKernel(
                function=function,
                architecture=architecture,
                registers=int(used.group(1)),
                stack_bytes=stack,
                spill_store_bytes=stores,
                spill_load_bytes=loads,
                shared_bytes=int(shared.group(1)) if shared else 0,
                threads=int(bounds.group(1)) if bounds else 0,
            )
        )
    return tuple(found)


def _ask(job: dict[str, object], wanted: int, seconds: float) -> list[dict[str, str]] | str:
    """The child's answers, so many of them, or in one sentence why there are none."""
    found = ask(COMMAND, job, seconds, memory=MEMORY)
    if isinstance(found, str):
        # What to install stands in the last line.
        missing = "ImportError" in found or "ModuleNotFoundError" in found
        return found.strip().splitlines()[-1] if missing else f"The compiler failed: {found}"
    answers: list[dict[str, str]] = found.get("answers", [])
    return answers if len(answers) == wanted else "The compiler did not answer for every source."
