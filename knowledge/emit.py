"""Prints a `Program` as a Python module that defines `ModelNew`, for a person to read and ship.

The constructor, and whatever it needs, is the reference's own text; only `forward` is written anew.
Nothing is run here, and no tensor library is imported.
"""

import ast
import re
import sys

from knowledge import emit_cuda, emit_triton
from knowledge.alike import Alike
from knowledge.emit_forward import LARGE_OUTPUT_BYTES, body_of, is_large, literal
from knowledge.program import Kernel, Program
from knowledge.reference_source import Reference, Unemittable, read_reference

__all__ = ["Unemittable", "definitions", "emit", "emit_as_given"]

_LOADER = "from tools.backends.cpp.loader import cpp_kernel"
# The first: -ffast-math lets the compiler replace quotients by approximate reciprocals, which turn
# 1 / inf to NaN. It also has GCC heed traps again, which nobody asks for, and make no vector code
# of log, floor or a sign; hence the second. The third: a clamp is a select, unless jumps are
# threaded past what follows it, which becomes a web of masks (a GELU took 1.44 ns, now 0.99).
LOOP_FLAGS = ("-fno-unsafe-math-optimizations", "-fno-trapping-math", "-fno-thread-jumps")
# As precautions after a rejection. Without threads the pragmas for vectors still count.
_PLAIN_MATH = ("-fno-fast-math", "-ffp-contract=off", "-U__FAST_MATH__")
_ONE_THREAD = ("-fno-openmp", "-fopenmp-simd")

_HUGE_PAGES = '''
try:
    _madvise = ctypes.CDLL(None, use_errno=True).madvise
    _madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
except (AttributeError, OSError, TypeError):
    _madvise = None
_HUGE_PAGE, _MADV_HUGEPAGE = 1 << 21, 14


def _empty_on_huge_pages(shape, dtype):
    """torch.empty on pages of 2 MiB: one page fault in place of 512."""
    out = torch.empty(shape, dtype=dtype)
    if _madvise is not None and sys.platform == "linux" and out.nbytes >= %d:
        start = -(-out.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        end = (out.data_ptr() + out.nbytes) // _HUGE_PAGE * _HUGE_PAGE
        if end > start:
            _madvise(start, end - start, _MADV_HUGEPAGE)  # advice only: without it pages stay small
    return out
'''


# The op's own class, where `ModelNew` is made from it: not `ModelNew` itself, since a constructor
# may call super() by the name of its class.
AS_GIVEN = "ModelAsGiven"
_COMPILED = '''class ModelNew(ModelAsGiven):
    """The same module, under torch.compile."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.compile()'''


def emit(program: Program) -> str:
    """The module's source.

    Raises:
        Unemittable: the reference's source, or a call in the graph, has no plain form.
        ValueError: the program's kernels wait for each other.
    """
    reference = read_reference(program.reference_source)
    own = [*definitions(program), reference.model_with(body_of(program, reference))]
    sections = [*_still_called(reference.helpers, "\n".join(own)), *own]
    return assembled(_docstring(program), reference, sections)


def _still_called(helpers: tuple[str, ...], text: str) -> list[str]:
    """The reference's helpers without functions that only its own forward called."""
    kept = list(helpers)
    for helper in reversed(helpers):
        node = ast.parse(helper).body[0]
        rest = "\n".join([text, *(other for other in kept if other is not helper)])
        if isinstance(node, ast.FunctionDef) and not re.search(rf"\b{node.name}\b", rest):
            kept.remove(helper)
    return kept


def assembled(docstring: str, reference: Reference, sections: list[str]) -> str:
    """A module: its docstring, the imports that the sections need, the sections."""
    imports = _imports(reference, "\n".join(sections))
    source = "\n\n\n".join([f"{docstring}\n\n{imports}", *sections]) + "\n"
    compile(source, "candidate", "exec")
    return source


def definitions(program: Program) -> list[str]:
    """What a program's forward needs at the top of its module."""
    huge = program.huge_pages and any(
        is_large(written.spec.nbytes)
        for kernel in program.kernels
        for written in kernel.writes
        if kernel.language == "cpp"
    )
    return [
        *([(_HUGE_PAGES % LARGE_OUTPUT_BYTES).strip()] if huge else []),
        *_constants(program),
        *([emit_triton.CONSTANTS.strip()] if _sends_constants(program) else []),
        *emit_triton.shared(program),
        *_kernel_sources(program),
    ]


def _sends_constants(program: Program) -> bool:
    """Whether constants of the module are read on a GPU."""
    constants = {node.name: node for node in program.graph.nodes if node.kind == "constant"}
    read = {ref.ref for kernel in program.kernels for ref in kernel.reads}
    called = {ref.ref for node in program.library_calls for ref in node.refs}
    return program.backend != "cpp" and any(
        name in read or (name in called and node.spec.shape) for name, node in constants.items()
    )


def emit_as_given(source: str, compiled: bool = False, mode: str | None = None) -> str:
    """The reference itself as a candidate: `Model` renamed `ModelNew`, forward untouched.

    Args:
        source: the reference's text.
        compiled: put it under torch.compile, which works at the first call.
        mode: of torch.compile; None for its usual one.

    Raises:
        Unemittable: the source has no class Model.
    """
    reference = read_reference(source, AS_GIVEN if compiled else "ModelNew")
    sections = ["\n".join(reference.imports), *reference.helpers, reference.model]
    chosen = f"mode={mode!r}" if mode is not None else ""
    sections += [_COMPILED.replace("compile()", f"compile({chosen})")] if compiled else []
    return "\n\n\n".join(section for section in sections if section) + "\n"


def _docstring(program: Program) -> str:
    kernels, calls = len(program.kernels), len(program.library_calls)
    done = "; ".join(program.steps) or "the op as the library does it"
    left = f"{kernels} kernel{'s' if kernels != 1 else ''} of its own"
    left += f", {calls} library call{'s' if calls != 1 else ''}"
    labels = "".join(f"\nNote: {label}." for label in program.labels)
    return f'"""A drop-in for Model: {done}.\n\n{left[0].upper()}{left[1:]}.{labels}\n"""'


def _imports(reference: Reference, text: str) -> str:
    """The reference's imports that are still needed, and our own, standard library first."""
    lines = [line for line in reference.imports if _is_used(line, text)]
    huge = "def _empty_on_huge_pages(" in text
    lines += [line for line in ("import ctypes", "import sys") if huge and line not in lines]
    if "import torch" not in lines:
        lines.insert(0, "import torch")
    lines += [line for line in emit_triton.imports(text) if line not in lines]
    first = [line for line in lines if line.split()[1].split(".")[0] in sys.stdlib_module_names]
    rest = [line for line in lines if line not in first]
    blocks = ["\n".join(block) for block in (sorted(first), rest) if block]
    loaders = [_LOADER] if " = cpp_kernel(" in text else []
    loaders += [emit_cuda.LOADER] if " = cuda_kernel(" in text else []
    return "\n\n".join([*blocks, *(["\n".join(loaders)] if loaders else [])])


def _is_used(statement: str, text: str) -> bool:
    """Whether any name that an import binds occurs in the module."""
    parsed = ast.parse(statement).body[0]
    assert isinstance(parsed, ast.Import | ast.ImportFrom)
    bound = [(alias.asname or alias.name).split(".")[0] for alias in parsed.names]
    return any(name == "*" or re.search(rf"\b{re.escape(name)}\b", text) for name in bound)


def _constants(program: Program) -> list[str]:
    used = {ref.ref for node in program.library_calls for ref in node.refs}
    used |= {ref.ref for kernel in program.kernels for ref in kernel.reads}
    used |= {ref.ref for ref in program.graph.outputs}
    lines = []
    for node in program.graph.nodes:
        if node.kind == "constant" and node.name in used:
            if node.data is None:
                raise Unemittable(f"constant {node.target} has no value")
            data = node.data[0] if not node.spec.shape and node.data else node.data
            text = literal(data)
            shape = f".reshape({node.spec.shape})" if len(node.spec.shape) > 1 else ""
            lines.append(
                f"_{node.name.upper()} = torch.tensor({text}, dtype=torch.{node.spec.dtype}){shape}"
            )
    return ["\n".join(lines)] if lines else []


def _kernel_sources(program: Program) -> list[str]:
    """The kernels' sources; two that differ in their names alone, as in repeated blocks, once."""
    alike = Alike()
    sections = []
    flags = [*(_PLAIN_MATH if program.precautions.plain_math else LOOP_FLAGS)]
    flags += _ONE_THREAD if program.precautions.one_thread else ()
    for kernel in program.kernels:
        first = alike.first(kernel)
        sections.append(
            _kernel_source(kernel, flags) if first is kernel else f"_{kernel.name} = _{first.name}"
        )
    return sections


def _kernel_source(kernel: Kernel, compiled_with: list[str]) -> str:
    if kernel.language != "cpp":
        return kernel.source.strip("\n")
    body = kernel.source.strip("\n")
    handle, flags = f"_{kernel.name}", ", ".join(f'"{flag}"' for flag in compiled_with)
    return (
        f'# {kernel.note}\n{handle.upper()}_CPP = r"""\n{body}\n"""\n'
        f'{handle} = cpp_kernel(\n    {handle.upper()}_CPP,\n    "{kernel.name}",\n'
        f'    "{kernel.signature}",\n    flags=({flags},),\n)'
    )
