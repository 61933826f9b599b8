"""Prints a fused loop as CUDA C++: its kernels, and what is needed to launch them.

Pointwise work on one run goes by fours; a row belongs to a warp, a part of one, or a block, and
stays in registers between its sweeps where it fits. Few long rows are shared among blocks, and then
each sweep is a kernel. Totals over everything are parts of a fixed number of blocks, put together
by a last kernel in a fixed order: no atomics, the same result to the bit every time.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from knowledge.loops.cuda_kernel import Design, KernelBody
from knowledge.loops.cuda_mathematics import FOLDS, spelled, unit
from knowledge.loops.cuda_shape import (
    BLOCKS,
    CudaIndices,
    CudaPlan,
    CudaWish,
    Geometry,
    choose,
    product_of,
)
from knowledge.loops.cuda_values import CudaValues
from knowledge.loops.form import Loop, Refused
from knowledge.loops.plan import Options
from knowledge.loops.spelling import STORAGE, indented, joined, start_of

# Blocks that share a total: each of 132 multiprocessors has seven, and one block adds them up.
TOTAL_BLOCKS = 1024
FLAT_BLOCKS = 4096
MOST_BLOCKS = 1 << 20
FINISH_THREADS = 256
# Threads for which a multiprocessor should have registers, where rows are kept in them: 64 each.
# Left to itself, the compiler takes twice as many to have all reads of a bias under way at once.
RESIDENT = 1024
TORCH = {"float": "float32", "double": "float64", "int64_t": "int64", "bool": "bool"}
WIDTH = 88


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: its C++ type, its name, and `p` (data) or `i` (int64)."""

    type: str
    name: str
    letter: Literal["p", "i"]


@dataclass(frozen=True)
class Scratch:
    """Device memory between kernels: its name, torch dtype, and a Python expression of its size."""

    name: str
    dtype: str
    elements: str


@dataclass(frozen=True)
class Launch:
    """One kernel's launch.

    `grid` (x, y) and the `arguments` are Python expressions over the names of sizes, tensors and
    `Cuda.setup`; `shared` is in bytes, on top of what the kernel declares.
    """

    function: str
    grid: tuple[str, str]
    block: tuple[int, int]
    parameters: tuple[Parameter, ...]
    arguments: tuple[str, ...]
    shared: int = 0

    @property
    def signature(self) -> str:
        """One letter for each parameter."""
        return "".join(parameter.letter for parameter in self.parameters)


@dataclass(frozen=True)
class Path:
    """Launches in order, what they need, and the Python condition under which they are taken."""

    condition: str
    setup: tuple[tuple[str, str], ...]
    scratch: tuple[Scratch, ...]
    launches: tuple[Launch, ...]


@dataclass(frozen=True)
class Cuda:
    """A loop in CUDA C++.

    `source` is the translation unit. `arguments` are the names that launches may use: operands,
    results, then sizes. The first of the `paths` whose condition holds is taken; the last one's is
    empty.
    """

    source: str
    arguments: tuple[str, ...]
    paths: tuple[Path, ...]


class CudaPrinter:
    """Prints one loop with one geometry; `functions` and `path` are the result."""

    def __init__(self, loop: Loop, name: str, design: Design, suffix: str = "") -> None:
        self.loop, self.name, self.design, self.suffix = loop, name, design, suffix
        self.at, self.plan, self.shape = design.at, design.plan, design.shape
        self.values = loop.values
        self.names = CudaValues(loop, design.at, design.plan, design.shape)
        self.functions: list[str] = []
        self.launches: list[Launch] = []
        self.counts: dict[int, str] = {}
        self._print()

    def _print(self) -> None:
        levels = self.plan.levels
        if self.design.phased:
            for level in range(levels):
                self._kernel(f"sweep_{level}", range(level, level + 1), rows=False)
            self._kernel("rows", range(0), rows=True)
        else:
            self._kernel("kernel", range(levels), rows=True)
        self._finish()

    def _kernel(self, what: str, levels: range, rows: bool) -> None:
        body = KernelBody(self.design, levels, rows)
        lines = body.lines()
        if not lines:
            return
        spread = self.shape.spread and bool(levels)
        grid = ("blocks", "parts" if spread else "1")
        for number in body.totals:
            self.counts[number] = "blocks * parts" if spread else "blocks"
        self._add(f"{self.name}_{what}{self.suffix}", lines, grid, self.shape.block)

    def _add(
        self, function: str, lines: list[str], grid: tuple[str, str], block: tuple[int, int]
    ) -> None:
        text = "\n".join(lines)
        known = self._known()
        taken = [p for p in known if re.search(rf"(?<![\w.]){p.name}\b", text)]
        arguments = tuple(self._argument(p.name) for p in taken)
        launch = Launch(function, grid, block, tuple(taken), arguments)
        self.launches.append(launch)
        threads = block[0] * block[1]
        # The last kernel, one block, is the same whether rows are held or not.
        held = self.shape.items > 0 and grid[0] == "blocks"
        bounds = f"{threads}, {max(1, RESIDENT // threads)}" if held else str(threads)
        head = f'extern "C" __global__ void __launch_bounds__({bounds}) {function}('
        given = wrapped([f"{p.type} {p.name}" for p in taken])
        given[-1] += ") {"
        first = [head, *indented(given, 2)]
        self.functions.append("\n".join([*first, *indented(lines), "}"]) + "\n")

    def _known(self) -> list[Parameter]:
        """Everything that a kernel may be handed."""
        found = [
            Parameter(f"const {spelled(STORAGE[o.dtype])}* __restrict__", n, "p")
            for o, n in zip(self.loop.operands, self.names.operand_names, strict=True)
        ]
        found += [
            Parameter(f"{spelled(STORAGE[s.dtype])}* __restrict__", n, "p")
            for s, n in zip(self.loop.stores, self.names.store_names, strict=True)
        ]
        for number, name, kind in self._parts():
            found.append(Parameter(f"{kind}* __restrict__", name, "p"))
            if number in self.plan.totals:
                found.append(Parameter("int64_t", f"blocks_{name}", "i"))
        found += [Parameter("int64_t", group.name, "i") for group in self.at.all]
        return [*found, Parameter("int64_t", "parts", "i")]

    def _parts(self) -> list[tuple[int, str, str]]:
        """The buffers of parts: of which value, their names and C++ types."""
        folds = [n for n, value in enumerate(self.values) if value.op == "fold"]
        found = [
            (n, f"parts_{self.names.name_of(n)}", self.design.kind(self.values[n]))
            for n in (folds if self.design.phased else [])
        ]
        return found + [
            (n, f"parts_{self.names.name_of(n)}", self.design.total_type(n))
            for n in self.plan.totals
        ]

    def _argument(self, name: str) -> str:
        for number, count in self.counts.items():
            if name == f"blocks_parts_{self.names.name_of(number)}":
                return count
        return name

    def _finish(self) -> None:
        """The kernel that puts totals together and stores what follows from them."""
        lines: list[str] = []
        for number in self.plan.totals:
            lines += self._total(number)
        stores = []
        for number, store in enumerate(self.loop.stores):
            if not self.plan.is_element_store(store) and not self.plan.is_row_store(store):
                text = self.names.stored_as(store.dtype, self.names.use(store.value, "final"))
                stores.append(f"{self.names.store_names[number]}[0] = {text};")
        if not stores:
            return
        own = [*self.names.unit.lines, *self.names.final.lines, *stores]
        block = (FINISH_THREADS if self.plan.totals else 1, 1)
        if self.plan.totals:
            own = ["if (threadIdx.x == 0) {", *indented(own), "}"]
        self._add(f"{self.name}_finish", [*lines, *own], ("1", "1"), block)

    def _total(self, number: int) -> list[str]:
        value, name = self.values[number], self.names.name_of(number)
        kind, part = self.design.total_type(number), f"parts_{self.names.name_of(number)}[part]"
        self.names.final.made[number] = name
        text = f"over_block<{FOLDS[value.fold]}>({name}_own)"
        text = f"static_cast<{value.type}>({text})" if kind != value.type else text
        return [
            f"{kind} {name}_own = {start_of(value.fold, kind)};",
            f"for (int64_t part = threadIdx.x; part < blocks_parts_{name}; part += blockDim.x) {{",
            f"    {name}_own = {joined(value.fold, f'{name}_own', part)};",
            "}",
            f"const {value.type} {name} = {text};",
        ]

    def path(self, condition: str) -> Path:
        """What Python has to do to run it."""
        used = {name for launch in self.launches for name in launch.arguments}
        scratch = []
        for number, name, kind in self._parts():
            if name in used:
                rows = product_of((*self.at.outer, *self.at.inner))
                size = self.counts.get(number) or ("parts" if rows == "1" else f"parts * {rows}")
                scratch.append(Scratch(name, TORCH[kind], size))
        setup = self._setup()
        grids = [size for launch in self.launches for size in launch.grid]
        text = " ".join([*used, *(one.elements for one in scratch), *grids])
        kept: list[tuple[str, str]] = []
        for name, meaning in reversed(setup):
            if re.search(rf"\b{name}\b", text):
                kept.append((name, meaning))
                text += f" {meaning}"
        return Path(condition, tuple(kept[::-1]), tuple(scratch), tuple(self.launches))

    def _setup(self) -> list[tuple[str, str]]:
        """How many tasks, blocks and parts of rows there are, in Python."""
        rows, shape = product_of(self.at.outer), self.shape
        columns = product_of(self.at.columns)
        if shape.kind == "flat":
            tasks = _ceiling(columns, shape.threads * shape.vector)
        elif shape.kind == "lanes":
            strips = _ceiling(product_of(self.at.inner), shape.beside)
            tasks = strips if rows == "1" else f"{rows} * ({strips})"
        else:
            tasks = _ceiling(rows, shape.beside)
        most = FLAT_BLOCKS if shape.kind == "flat" else MOST_BLOCKS
        most = TOTAL_BLOCKS if self.plan.totals else most
        step = shape.along * shape.vector * (1 if not self.design.phased else 4)
        parts = f"max(1, min({_ceiling(columns, step)}, {BLOCKS} // max(blocks, 1)))"
        return [("blocks", f"min({tasks}, {most})"), ("parts", parts)]


def wrapped(items: list[str]) -> list[str]:
    """A list with commas, over as many lines as it takes."""
    lines = [""]
    for position, item in enumerate(items):
        text = item + ("," if position < len(items) - 1 else "")
        if lines[-1] and len(lines[-1]) + len(text) >= WIDTH:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{text}"
    return lines


def _ceiling(number: str, divisor: int) -> str:
    if divisor == 1 or number == "1":
        return number
    number = f"({number})" if " " in number else number
    return f"({number} + {divisor - 1}) // {divisor}"


def _design(loop: Loop, options: Options, wish: CudaWish) -> Design:
    at = CudaIndices(loop)
    plan = CudaPlan(loop, at, options, registers=True)
    shape = choose(loop, at, plan, wish)
    return _with(loop, at, options, shape)


def _with(loop: Loop, at: CudaIndices, options: Options, shape: Geometry) -> Design:
    plan = CudaPlan(loop, at, options, registers=shape.items > 0)
    return Design(loop, at, plan, shape, options)


def print_cuda(
    loop: Loop, name: str, options: Options, wish: CudaWish | None = None
) -> Cuda | Refused:
    """The loop as CUDA C++; a `Refused` where it has no form there."""
    try:
        design = _design(loop, options, wish or CudaWish())
        printers = [CudaPrinter(loop, name, design)]
        conditions = [""]
        if design.shape.items:
            # Longer rows than those traced don't stay in registers; an empty one has no element
            # to read past its end.
            columns = product_of(design.at.columns)
            conditions = [f"0 < {columns} <= {design.shape.capacity}", ""]
            longer = _with(loop, design.at, options, replace(design.shape, items=0))
            printers.append(CudaPrinter(loop, name, longer, "_long"))
    except Refused as refusal:
        return refusal
    paths = tuple(p.path(c) for p, c in zip(printers, conditions, strict=True))
    functions = dict.fromkeys(text for printer in printers for text in printer.functions)
    first = printers[0].names
    sizes = [group.name for group in printers[0].at.all]
    arguments = (*first.operand_names, *first.store_names, *sizes)
    return Cuda(unit("\n".join(functions)), arguments, paths)
