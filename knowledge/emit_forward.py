"""Prints the body of a program's forward: guards, library calls and kernels, in their order."""

import keyword
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from knowledge import emit_cuda, emit_triton
from knowledge.freedom import SIZED, freedom
from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.program import Kernel, Program, Written, variable
from knowledge.reference_source import Reference, Unemittable

LARGE_OUTPUT_BYTES = 32 << 20
# From this size on a tensor is freed as soon as nothing reads it any more. Its memory is then at
# hand, and in cache, for the next one; kept until forward returns, everything would lie in pages
# of its own. Smaller ones are not worth a line.
FREED_BYTES = 128 << 10

# A tensor that a kernel reads as it lies, or a copy of it; and where its strides are asked for.
_LAID = "_laid"
_WORD, _TEXT = re.compile(r"\w+"), re.compile(r'"[^"\n]*"')
_STRIDE = re.compile(r"\b(\w+)(?=\.stride\()")
_TARGET = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*\.[A-Za-z_]\w*")


def body_of(program: Program, reference: Reference, otherwise: str = "") -> list[str]:
    """The statements of a program's forward.

    Args:
        program: the op, or a part of one.
        reference: names forward's arguments.
        otherwise: a statement for inputs that it was not made for; an error is raised if empty.
    """
    return _Forward(program, reference, _Names(program.graph, reference), otherwise).lines()


def is_large(nbytes: int) -> bool:
    """Whether an output is worth pages of 2 MiB."""
    return nbytes >= LARGE_OUTPUT_BYTES


def literal(value: Any) -> str:
    """A number, or a list of them, in Python; what is no finite number included."""
    if isinstance(value, list):
        return f"[{', '.join(literal(item) for item in value)}]"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f'float("{value}")'
    return repr(value)


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
        last = []
        for path, text in graph.mutations.items():
            name, _, index = text.partition("[")
            ref = Ref(ref=name, index=int(index[:-1]) if index else None)
            last.append(f"self{_path(path)}.copy_({self.names.of(ref)})")
        returned = [self._returned(ref) for ref in graph.outputs]
        last.append(f"return {graph.packed(returned)}")
        head = [*self._guards(), *self._dense_inputs(), *self._attributes()]
        return [*head, *self._steps(last), *last]

    def _steps(self, last: list[str]) -> list[str]:
        """Calls and kernels in their order; what is large and read no more is deleted at once."""
        units = list(self.program.schedule())
        steps = [
            self._kernel(unit) if isinstance(unit, Kernel) else self._call(unit) for unit in units
        ]
        large = dict.fromkeys(name for unit in units for name in self._large(unit))
        needed = _words(last)
        lines: list[str] = []
        for step in reversed(steps):
            words = _words(step)
            ended = [name for name in large if name in words and name not in needed]
            needed |= words
            lines = [*step, *([f"del {', '.join(ended)}"] if ended and lines else []), *lines]
        return lines

    def _large(self, unit: Kernel | Node) -> list[str]:
        """The variables that a step makes and that are worth deleting."""
        if isinstance(unit, Kernel):
            made = {written.ref: written.spec for written in unit.writes}
            laid = [f"{self.names.inside(name)}{_LAID}" for name in unit.spaced]
        else:
            indices = sorted(self._indices(unit)) if isinstance(unit.result, tuple) else [None]
            refs = [Ref(ref=unit.name, index=index) for index in indices]
            made, laid = {ref: self.program.graph.spec_of(ref) for ref in refs}, []
        names = [self.names.of(ref) for ref, spec in made.items() if spec.nbytes >= FREED_BYTES]
        return [*names, *laid]

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

    @cached_property
    def _free(self) -> tuple[bool, bool]:
        """Whether the first dimension of inputs may vary, and whether all may."""
        return freedom(self.program)

    def _guards(self) -> list[str]:
        """What every input must be: dtype, rank, and the sizes taken for granted."""
        lines: list[str] = []
        free_batch, free_all = self._free
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
        if self._on_gpu and (entering := emit_triton.entering(self.program.graph)) is not None:
            used.add(entering.ref)
        return [
            f"{self.names.of(Ref(ref=node.name))} = self{_path(node.target)}"
            for node in self.program.graph.nodes
            if node.kind in ("parameter", "buffer") and node.name in used
        ]

    def _call(self, node: Node) -> list[str]:
        if not _TARGET.fullmatch(node.target):
            raise Unemittable(f"the call {node.target} has no plain form")
        there = self._there()
        args = self._sizes_of_batch(node)
        given = [self._argument(value, there) for value in args]
        if there and node.target == "aten.to.device":
            given[1] = there
        if "as_strided" in node.target:
            given[0] = self._in_its_order(node.args[0])
        for key, value in node.kwargs.items():
            # The graph has the device that it was traced on, which need not be the one it runs on.
            device = there if key == "device" and value is not None else ""
            if not (there and key == "pin_memory"):
                given.append(f"{key}={device or self._argument(value, there)}")
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

    @property
    def _on_gpu(self) -> bool:
        return self.program.backend != "cpp"

    def _there(self) -> str:
        """The device of a program on a GPU, as an expression; "" on the CPU."""
        found = emit_triton.entering(self.program.graph) if self._on_gpu else None
        return f"{self.names.of(found)}.device" if found is not None else ""

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

    def _argument(self, value: Any, there: str = "") -> str:
        if isinstance(value, _Code):
            return value.text
        if isinstance(value, Ref):
            # A single number on the CPU goes with tensors on any device.
            node = self.program.graph.by_name[value.ref]
            return self._read(value, there if node.kind == "constant" and node.spec.shape else "")
        if isinstance(value, list):
            return f"[{', '.join(self._argument(item, there) for item in value)}]"
        if isinstance(value, str) and value.startswith("torch."):
            return value
        return literal(value)

    def _kernel(self, kernel: Kernel) -> list[str]:
        lines: list[str] = []
        for check in (*kernel.checks, *(kernel.limits if self._free[1] else ())):
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
        # A copy is made once of what is read in several ways.
        handed = [self._handed(kernel, ref, there) for ref in kernel.reads]
        again = [
            ref for ref in dict.fromkeys(kernel.reads) if there and kernel.reads.count(ref) > 1
        ]
        laid = {self._handed(kernel, ref, there): f"{self.names.of(ref)}{_LAID}" for ref in again}
        laid = {text: name for text, name in laid.items() if text.endswith(".contiguous()")}
        lines += [f"{name} = {text}" for text, name in laid.items()]
        reads = [laid.get(text, text) for text in handed]
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
        """A tensor that is read; constants of the module come to where it is."""
        constant = self.program.graph.by_name[ref.ref].kind == "constant"
        name = self.names.of(ref)
        return f"_on_device({name}, {there})" if there and constant else name

    def _allocated(self, written: Written, there: str) -> str:
        shape = self.names.inside(written.shape)
        dtype = f"torch.{written.spec.dtype}"
        if there:
            return f"torch.empty({shape}, dtype={dtype}, device={there})"
        if self.program.huge_pages and is_large(written.spec.nbytes):
            return f"_empty_on_huge_pages({shape}, {dtype})"
        return f"torch.empty({shape}, dtype={dtype})"


def _words(lines: list[str]) -> set[str]:
    """The words of some statements, but for what they say to a reader."""
    return set(_WORD.findall(_TEXT.sub("", "\n".join(lines))))


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
