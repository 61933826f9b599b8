"""Fuses a loop into the kernel that makes what it reads: block by block, while that is in cache.

An *anchor* (a matrix product, a convolution) makes its result in *units*: the indices of its first
dimensions, say the rows of a product or the planes of an image. After each block of whole units it
calls the epilogue on them, which may be pointwise work and reductions within a unit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

from knowledge.loops.cost import HALVES
from knowledge.loops.cpp import Printer
from knowledge.loops.form import Loop, Refused
from knowledge.loops.indices import groups_of
from knowledge.loops.islands import downstream, find_islands
from knowledge.loops.kernel import Shapes, operations_of
from knowledge.loops.lower import lower, read_outside
from knowledge.loops.plan import Options
from knowledge.loops.short_rows import form_of
from knowledge.loops.spelling import STORAGE
from knowledge.opgraph import Ref
from knowledge.program import Check, Program, Size, Written

NAME = "epilogue"
Found = TypeVar("Found")


@dataclass(frozen=True)
class Epilogue:
    """What is done to each block of an anchor's result.

    `source` is C++ that goes before the anchor's own: headers, helpers, one static function.
    `parameters` are those that the anchor's function needs for it, in the order of `reads`,
    `writes`, `sizes`. `arguments` are what it calls the static function with, None for the block.
    `keeps_anchor` says that others read the anchor's result too, so that it must
    also be written out. `reads_wide` says that it takes the anchor's halves as the floats they
    were summed in, not yet rounded.
    """

    nodes: tuple[str, ...]
    source: str
    parameters: str
    reads: tuple[Ref, ...]
    writes: tuple[Written, ...]
    sizes: tuple[Size, ...]
    checks: tuple[Check, ...]
    operations: int
    keeps_anchor: bool
    reads_wide: bool
    arguments: tuple[str | None, ...]

    def call(self, block: str, first: str, last: str, units: str) -> str:
        """The C++ statement that applies it to units [first, last) of `units` in all.

        `block` points to where unit 0 would lie if all units lay there one after the other.
        """
        given = [name or block for name in self.arguments]
        return f"{NAME}({', '.join([*given, first, last, units])});"

    @property
    def signature(self) -> str:
        """Letters of its parameters, as `Kernel.signature` has them."""
        return "p" * (len(self.reads) + len(self.writes)) + "i" * len(self.sizes)


def find_epilogue(
    program: Program,
    anchor: str,
    dims: int,
    shape: tuple[str, ...],
    options: Options | None = None,
) -> Epilogue | None:
    """The largest epilogue of a call, or None where nothing that reads it can be fused.

    Args:
        program: the op; calls that its kernels compute already are left alone.
        anchor: the call, which makes one tensor.
        dims: how many of its result's first dimensions tell units apart.
        shape: Python expressions for the sizes of its result, which need not come into being.
        options: the tunables of loops.
    """
    ref = Ref(ref=anchor)
    units = prod(program.graph.spec_of(ref).shape[:dims])
    wanted = _Wanted(program, ref, units, shape, options or Options(prefetch=False))
    return largest(program, anchor, lambda names: _attempt(wanted, names))


def largest(
    program: Program, anchor: str, attempt: Callable[[tuple[str, ...]], Found | None]
) -> Found | None:
    """What is made of the most calls that read an anchor's result, in one island, from its start.

    Calls that the program's kernels compute already are left alone.
    """
    graph, ref = program.graph, Ref(ref=anchor)
    taken = (*(kernel.nodes for kernel in program.kernels), (anchor,))
    islands, _ = find_islands(graph, taken, downstream(graph, anchor))
    reading = [
        island.nodes for island in islands if any(o.ref == ref for o in island.loop.operands)
    ]
    for nodes in sorted(reading, key=len, reverse=True):
        for kept in range(len(nodes), 0, -1):
            found = attempt(nodes[:kept])
            if found is not None:
                return found
    return None


@dataclass(frozen=True)
class _Wanted:
    """What an epilogue is looked for with."""

    program: Program
    ref: Ref
    units: int
    shape: tuple[str, ...]
    options: Options


def _attempt(wanted: _Wanted, names: tuple[str, ...]) -> Epilogue | None:
    graph = wanted.program.graph
    loop = lower(graph, tuple(graph.by_name[name] for name in names))
    if isinstance(loop, str) or not _falls_into_units(loop.dense, wanted):
        return None
    try:
        return _made(wanted, names, loop.dense)
    except Refused:
        return None


def _falls_into_units(loop: Loop, wanted: _Wanted) -> bool:
    """Whether each unit of the anchor's result is a run of whole tasks of the loop."""
    operand = next((one for one in loop.operands if one.ref == wanted.ref), None)
    if operand is None or operand.atoms != loop.domain.everything:
        return False
    if any(one.extents and one.ref == wanted.ref for one in loop.operands):
        return False
    if wanted.units == 0 or loop.domain.count(loop.domain.everything) == 0:
        return False
    outer, columns, inner = groups_of(loop)
    if not (outer or inner or loop.domain.structured or len(columns) > 1):
        return True
    return loop.domain.count(loop.domain.outer) % wanted.units == 0


def _made(wanted: _Wanted, names: tuple[str, ...], loop: Loop) -> Epilogue | None:
    graph, ref = wanted.program.graph, wanted.ref
    reads_wide = graph.spec_of(ref).dtype in HALVES
    if reads_wide:
        loop = _with_wide_anchor(loop, ref)
    form = form_of(loop)
    tiles = form == "tiles" and len(groups_of(loop)[0]) == 1
    options = replace(wanted.options, prefetch=False)
    printer = Printer(loop, NAME, options, "tiles" if tiles else "plain")
    source = printer.part()
    shapes = Shapes(graph, loop, {ref: wanted.shape})
    reads = tuple(operand.ref for operand in loop.operands if operand.ref != ref)
    if ref in reads or len(reads) != len(loop.operands) - 1:
        return None
    writes = tuple(
        Written(ref=store.ref, shape=shapes.shape(store.layout), spec=graph.spec_of(store.ref))
        for store in loop.stores
    )
    groups = [group for part in groups_of(loop) for group in part]
    sizes = tuple(
        Size(name=f"size{at}", expression=shapes.product(group.atoms))
        for at, group in enumerate(groups)
    )
    others = [operand for operand in loop.operands if operand.ref != ref]
    parameters = [f"const {STORAGE[operand.dtype]}* extra{at}" for at, operand in enumerate(others)]
    parameters += [f"{STORAGE[store.dtype]}* result{at}" for at, store in enumerate(loop.stores)]
    parameters += [f"int64_t {size.name}" for size in sizes]
    named = {operand.ref: f"extra{at}" for at, operand in enumerate(others)}
    arguments: list[str | None] = [named.get(operand.ref) for operand in loop.operands]
    arguments += [f"result{at}" for at in range(len(writes))] + [size.name for size in sizes]
    found = Epilogue(
        nodes=names, source=source, parameters=", ".join(parameters), reads=reads, writes=writes,
        sizes=sizes, checks=shapes.checks(), operations=operations_of(loop),
        keeps_anchor=ref in read_outside(graph, {ref.ref, *names}), reads_wide=reads_wide,
        arguments=tuple(arguments),
    )  # fmt: skip
    fits = wanted.program.runs_as_one((ref.ref, *names))
    return found if fits else None


def _with_wide_anchor(loop: Loop, ref: Ref) -> Loop:
    """The loop reading an anchor's halves as floats."""
    return replace(
        loop,
        operands=tuple(
            replace(operand, dtype="float32") if operand.ref == ref else operand
            for operand in loop.operands
        ),
    )
