"""Prints a `Program` as a Python module that defines `ModelNew`, for a person to read and ship.

The constructor, and whatever it needs, is the reference's own text; only `forward` is written anew.
Nothing is run here, and no tensor library is imported.
"""

import ast
import keyword
import re
import sys
from dataclasses import dataclass
from typing import Any

from knowledge import emit_cuda, emit_triton
from knowledge.freedom import SIZED, freedom
from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.program import Kernel, Program, Written, variable
from knowledge.reference_source import Reference, Unemittable, read_reference

__all__ = ["LARGE_OUTPUT_BYTES", "Unemittable", "body_of", "definitions", "emit", "emit_as_given"]

LARGE_OUTPUT_BYTES = 32 << 20

_LOADER = "from tools.backends.cpp.loader import cpp_kernel"
# The first: -ffast-math lets the compiler replace quotients by approximate reciprocals, which turn
# 1 / inf to NaN. It also has GCC heed traps again, which nobody asks for, and make no vector code
# of log, floor or a sign; hence the second. The third: a clamp is a select, unless jumps are
# threaded past what follows it, which becomes a web of masks (a GELU took 1.44 ns, now 0.99).
LOOP_FLAGS = ("-fno-unsafe-math-optimizations", "-fno-trapping-math", "-fno-thread-jumps")
# As precautions after a rejection. Without threads the pragmas for vectors still count.
_PLAIN_MATH = ("-fno-fast-math", "-ffp-contract=off", "-U__FAST_MATH__")
_ONE_THREAD = ("-fno-openmp", "-fopenmp-simd")
# A tensor that a kernel reads as it lies, or a copy of it; and where its strides are asked for.
_LAID = "_laid"
_STRIDE = re.compile(r"\b(\w+)(?=\.stride\()")
_TARGET = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*\.[A-Za-z_]\w*")

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
        _is_large(written.spec.nbytes)
        for kernel in program.kernels
        for written in kernel.writes
        if kernel.language == "cpp"
    )
    return [
        *([(_HUGE_PAGES % LARGE_OUTPUT_BYTES).strip()] if huge else []),
        *_constants(program),
        *emit_triton.shared(program),
        *_kernel_sources(program),
    ]


def body_of(program: Program, reference: Reference, otherwise: str = "") -> list[str]:
    """The statements of a program's forward.

    Args:
        program: the op, or a part of one.
        reference: names forward's arguments.
        otherwise: a statement for inputs that it was not made for; an error is raised if empty.
    """
    return _Forward(program, reference, _Names(program.graph, reference), otherwise).lines()


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


def _is_large(nbytes: int) -> bool:
    return nbytes >= LARGE_OUTPUT_BYTES


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
            text = _literal(data)
            shape = f".reshape({node.spec.shape})" if len(node.spec.shape) > 1 else ""
            lines.append(
                f"_{node.name.upper()} = torch.tensor({text}, dtype=torch.{node.spec.dtype}){shape}"
            )
    return ["\n".join(lines)] if lines else []


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_literal(item) for item in value)}]"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f'float("{value}")'
    return repr(value)


def _kernel_sources(program: Program) -> list[str]:
    """The kernels' sources; two that differ in their names alone, as in repeated blocks, once."""
    printed: dict[tuple[str, str], Kernel] = {}
    sections = []
    flags = [*(_PLAIN_MATH if program.precautions.plain_math else LOOP_FLAGS)]
    flags += _ONE_THREAD if program.precautions.one_thread else ()
    for kernel in program.kernels:
        like = (kernel.source.replace(kernel.name, "@"), kernel.signature)
        first = printed.setdefault(like, kernel)
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


class _Names:
    """Python names of the graph's values: none hides an argument, a module or a keyword."""

    def __init__(self, graph: OpGraph, reference: Reference) -> None:
        taken = {"self", "torch", "ctypes", "sys", "cpp_kernel", *keyword.kwlist}
        taken |= {*emit_triton.NAMES, *emit_cuda.NAMES}
        taken |= set(reference.arguments) | set(reference.defined)
        self._of: dict[str, str] = {}
        for node in graph.nodes:
            if node.kind == "input":
                position = int(node.target)
                if position >= len(reference.arguments):
                    raise Unemittable("forward takes its tensors in lists or by keyword alone")
                self._of[node.name] = reference.arguments[position]
            elif node.kind == "constant":
                self._of[node.name] = f"_{node.name.upper()}"
            else:
                name = re.sub(r"\W", "_", node.name)
                while name in taken:
                    name += "_"
                taken.add(name)
                self._of[node.name] = name

    def of(self, ref: Ref) -> str:
        """The variable of a value."""
        return variable(Ref(ref=self._of.get(ref.ref, ref.ref), index=ref.index))

    def inside(self, expression: str) -> str:
        """An expression over the graph's names, as one over the emitted names."""
        return re.sub(
            r"(?<![\w.])[A-Za-z_]\w*", lambda found: self._renamed(found.group()), expression
        )

    def _renamed(self, word: str) -> str:
        if word in self._of:
            return self._of[word]
        stem, _, index = word.rpartition("_")
        if index.isdigit() and stem in self._of:
            return f"{self._of[stem]}_{index}"
        return word


@dataclass
class _Forward:
    """Writes the body of forward."""

    program: Program
    reference: Reference
    names: _Names
    otherwise: str = ""

    def lines(self) -> list[str]:
        """Statements, unindented."""
        graph = self.program.graph
        lines = [*self._guards(), *self._dense_inputs(), *self._attributes()]
        for unit in self.program.schedule():
            lines += self._kernel(unit) if isinstance(unit, Kernel) else self._call(unit)
        for path, text in graph.mutations.items():
            name, _, index = text.partition("[")
            ref = Ref(ref=name, index=int(index[:-1]) if index else None)
            lines.append(f"self{_path(path)}.copy_({self.names.of(ref)})")
        returned = [self._returned(ref) for ref in graph.outputs]
        return [*lines, f"return {graph.packed(returned)}"]

    def _returned(self, ref: Ref) -> str:
        fresh = ".clone(memory_format=torch.contiguous_format)"
        return self.names.of(ref) + (fresh if self.program.precautions.fresh_outputs else "")

    def _dense_inputs(self) -> list[str]:
        """As a precaution: inputs in dense memory that begins where a cache line does."""
        if not self.program.precautions.dense_inputs:
            return []
        names = [self.names.of(Ref(ref=node.name)) for node in self.program.graph.inputs]
        return [
            line
            for name in names
            for line in (
                f"if not {name}.is_contiguous() or {name}.data_ptr() % 64:",
                f"    {name} = {name}.clone(memory_format=torch.contiguous_format)",
            )
        ]

    def _guards(self) -> list[str]:
        """What every input must be: dtype, rank, and the sizes taken for granted."""
        lines: list[str] = []
        free_batch, free_all = freedom(self.program)
        for node in self.program.graph.inputs:
            name, spec = self.names.of(Ref(ref=node.name)), node.spec
            shape = "any shape" if free_all else list(spec.shape)
            condition = f"{name}.dtype != torch.{spec.dtype} or {name}.dim() != {len(spec.shape)}"
            if not free_all and spec.shape:
                fixed = spec.shape[1:] if free_batch else spec.shape
                which = f"{name}.shape[1:]" if free_batch else f"{name}.shape"
                if fixed:
                    condition += f" or {which} != {fixed}"
            if self.otherwise:
                lines += [f"if {condition}:", f"    {self.otherwise}"]
                continue
            told = f"made for {spec.dtype} of {len(spec.shape)} dimensions"
            if not free_all:
                told = f"made for {spec.dtype} of shape {shape}"
                told += " (the first may differ)" if free_batch and spec.shape else ""
            lines += [
                f"if {condition}:",
                "    raise ValueError(",
                f'        f"{name} is {{{name}.dtype}} {{tuple({name}.shape)}}; "',
                f'        "this kernel was {told}"',
                "    )",
            ]
        return lines

    def _attributes(self) -> list[str]:
        used = {ref.ref for node in self.program.library_calls for ref in node.refs}
        used |= {ref.ref for kernel in self.program.kernels for ref in kernel.reads}
        used |= {ref.ref for ref in self.program.graph.outputs}
        return [
            f"{self.names.of(Ref(ref=node.name))} = self{_path(node.target)}"
            for node in self.program.graph.nodes
            if node.kind in ("parameter", "buffer") and node.name in used
        ]

    def _call(self, node: Node) -> list[str]:
        if not _TARGET.fullmatch(node.target):
            raise Unemittable(f"the call {node.target} has no plain form")
        args = self._sizes_of_batch(node)
        given = [self._argument(value) for value in args]
        if "as_strided" in node.target:
            given[0] = self._in_its_order(node.args[0])
        given += [f"{key}={self._argument(value)}" for key, value in node.kwargs.items()]
        # A kernel's result is dense where the library's, as traced, may not be: what is a view of
        # the one may have to be a copy of the other.
        target = node.target.replace("aten.view.default", "aten.reshape.default")
        call = f"torch.ops.{target}({', '.join(given)})"
        name = self.names.of(Ref(ref=node.name))
        if not isinstance(node.result, tuple):
            return [f"{name} = {call}"]
        used = self._indices(node)
        targets = [
            self.names.of(Ref(ref=node.name, index=index)) if index in used else "_"
            for index in range(len(node.result))
        ]
        return [f"{', '.join(targets)}{',' if len(targets) == 1 else ''} = {call}"]

    def _in_its_order(self, source: Any) -> str:
        """A tensor laid out as it was traced, for who counts through its memory."""
        name = self._argument(source)
        if not isinstance(source, Ref) or source.ref not in self.program.kernel_of:
            return name
        spec = self.program.graph.spec_of(source)
        if spec.contiguous:
            return name
        return f"{name}.new_empty_strided({spec.shape}, {spec.strides}).copy_({name})"

    def _indices(self, node: Node) -> set[int]:
        graph = self.program.graph
        refs = [ref for one in graph.nodes for ref in one.refs] + list(graph.outputs)
        used = {ref.index for ref in refs if ref.ref == node.name and ref.index is not None}
        for text in graph.mutations.values():
            name, _, index = text.partition("[")
            if name == node.name and index:
                used.add(int(index[:-1]))
        return used

    def _sizes_of_batch(self, node: Node) -> tuple[Any, ...]:
        """A view's arguments, with the batch's size taken from the tensor at run time."""
        sizes = node.args[1] if len(node.args) > 1 else None
        if not node.target.startswith(SIZED) or not isinstance(sizes, list) or not sizes:
            return node.args
        source = node.args[0]
        assert isinstance(source, Ref)
        shape = self.program.graph.spec_of(source).shape
        if not shape or sizes[0] != shape[0]:
            return node.args
        return (source, [_Code(f"{self.names.of(source)}.shape[0]"), *sizes[1:]], *node.args[2:])

    def _argument(self, value: Any) -> str:
        if isinstance(value, _Code):
            return value.text
        if isinstance(value, Ref):
            return self.names.of(value)
        if isinstance(value, list):
            return f"[{', '.join(self._argument(item) for item in value)}]"
        if isinstance(value, str) and value.startswith("torch."):
            return value
        return _literal(value)

    def _kernel(self, kernel: Kernel) -> list[str]:
        lines: list[str] = []
        for check in kernel.checks:
            left, right = self.names.inside(check.left), self.names.inside(check.right)
            refuse = self.otherwise or f'raise ValueError("{check.sentence}")'
            lines += [f"if {left} != {right}:", f"    {refuse}"]
        there = ""
        if kernel.language != "cpp":
            there = f"{self.names.of(emit_triton.device_of(self.program.graph, kernel))}.device"
        for written in kernel.writes:
            lines.append(f"{self.names.of(written.ref)} = {self._allocated(written, there)}")
        for name, condition in kernel.spaced.items():
            tensor = self.names.inside(name)
            lines += [
                f"{tensor}{_LAID} = {tensor}",
                f"if not ({self.names.inside(condition)}):",
                f"    {tensor}{_LAID} = {tensor}.contiguous()",
            ]
        reads = [self._handed(kernel, ref, there) for ref in kernel.reads]
        writes = [self.names.of(written.ref) for written in kernel.writes]
        sizes = [
            _STRIDE.sub(rf"\g<1>{_LAID}", text) if kernel.spaced else text
            for text in (self.names.inside(size.expression) for size in kernel.sizes)
        ]
        lines.append(f"_{kernel.name}({', '.join([*reads, *writes, *sizes])})")
        for name, sentence in kernel.complaints.items():
            if there:
                # Without waiting for the device.
                lines.append(f'torch._assert_async({name} < 1, "{sentence}")')
            else:
                lines += [f"if {name} > 0:", f'    raise IndexError("{sentence}")']
        return lines

    def _handed(self, kernel: Kernel, ref: Ref, there: str) -> str:
        if variable(ref) in kernel.spaced:
            return f"{self.names.of(ref)}{_LAID}"
        return self._read(ref, there) + ("" if ref in kernel.strided else ".contiguous()")

    def _read(self, ref: Ref, there: str) -> str:
        """A tensor that a kernel reads; constants of the module come to where it runs."""
        constant = self.program.graph.by_name[ref.ref].kind == "constant"
        return f"{self.names.of(ref)}.to({there})" if there and constant else self.names.of(ref)

    def _allocated(self, written: Written, there: str) -> str:
        shape = self.names.inside(written.shape)
        dtype = f"torch.{written.spec.dtype}"
        if there:
            return f"torch.empty({shape}, dtype={dtype}, device={there})"
        if self.program.huge_pages and _is_large(written.spec.nbytes):
            return f"_empty_on_huge_pages({shape}, {dtype})"
        return f"torch.empty({shape}, dtype={dtype})"


@dataclass(frozen=True)
class _Code:
    """An argument that is already Python."""

    text: str


def _path(target: str) -> str:
    """A dotted attribute path as Python after `self`: numbers (of a Sequential) as subscripts."""
    text = ""
    for part in target.split("."):
        text += f"[{part}]" if part.isdigit() else f".{part}"
    return text
