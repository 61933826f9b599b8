"""Pointwise work on the tile that an anchor's Triton kernel holds, before it is stored.

An anchor (a convolution, a pooling, a product) says by `Grid` which names its kernel has for the
indices of its result's dimensions; the loop that follows reads its other operands by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from knowledge.loops.form import Loop, Operand, Refused
from knowledge.loops.indices import Indices, Spacing
from knowledge.loops.islands import downstream, find_islands
from knowledge.loops.kernel import Shapes, operations_of
from knowledge.loops.lower import lower, read_outside
from knowledge.loops.shapes import Layout, partition
from knowledge.loops.triton_mathematics import helpers
from knowledge.loops.triton_tile import Place, Tile
from knowledge.loops.triton_tile import Shape as TileShape
from knowledge.loops.triton_values import TritonValues
from knowledge.opgraph import OpGraph, Ref
from knowledge.program import Check, Program, Written, variable

_SPECIAL = ("count", "position", "gather", "fold", "total")


@dataclass(frozen=True)
class Grid:
    """What an anchor's kernel calls the indices of its result.

    `sizes` holds the size of each dimension. `index` gives the name of the index over a run of
    dimensions, at least over each alone and over all together. `masks` are names of masks, each
    with the dimensions whose indices it guards; a name that is empty guards nothing.
    """

    sizes: tuple[str, ...]
    index: Mapping[tuple[int, ...], str]
    masks: tuple[tuple[frozenset[int], str], ...]

    def offset(self, dims: tuple[int, ...]) -> str:
        """Where the elements of a dense tensor lie that spans these dimensions."""
        runs: list[tuple[int, ...]] = []
        rest = dims
        while rest:
            run = next(rest[:n] for n in range(len(rest), 0, -1) if rest[:n] in self.index)
            runs.append(run)
            rest = rest[len(run) :]
        terms = []
        for position, run in enumerate(runs):
            after = [self.sizes[dim] for one in runs[position + 1 :] for dim in one]
            terms.append(" * ".join([self.index[run], *after]))
        return " + ".join(terms)

    def mask(self, dims: tuple[int, ...]) -> str:
        """The mask of a tensor that spans these dimensions; "" where there is none."""
        return " & ".join(name for of, name in self.masks if name and of & set(dims))


class _AnchorTile(Tile):
    """The tile of a loop whose elements an anchor's kernel has made."""

    def __init__(self, loop: Loop, layout: Layout, grid: Grid) -> None:
        super().__init__(loop, Indices(loop), TileShape("flat", 1, 1, 1))
        self.layout, self.grid = layout, grid

    def dims(self, atoms: tuple[int, ...]) -> tuple[int, ...]:
        """The dimensions of the anchor's result that some atoms make up."""
        found = [dim for dim, own in enumerate(self.layout) if own and set(own) <= set(atoms)]
        if sum(len(self.layout[dim]) for dim in found) != len(atoms):
            raise Refused("an operand spans a part of a dimension")
        return tuple(found)

    def offset(self, atoms: tuple[int, ...], place: Place, spacing: Spacing | None = None) -> str:
        """Where the elements of a dense tensor lie that spans these atoms; "" for its first."""
        if atoms == self.loop.domain.everything:
            return self.grid.index[tuple(range(len(self.grid.sizes)))]
        return self.grid.offset(self.dims(atoms))

    def mask(self, atoms: tuple[int, ...], element: bool, place: Place) -> str:
        """The mask for a tensor that spans these atoms; "" where there is none."""
        return self.grid.mask(self.dims(atoms))


@dataclass(frozen=True)
class TritonEpilogue:
    """What is done to an anchor's result before it is stored.

    `reads` and `writes` are handed to the kernel as `operands` and `results`, in order.
    `keeps_anchor` says that others read the anchor's result too, so that it must also be stored.
    """

    loop: Loop
    layout: Layout
    anchor: Ref
    nodes: tuple[str, ...]
    reads: tuple[Ref, ...]
    writes: tuple[Written, ...]
    checks: tuple[Check, ...]
    operations: int
    keeps_anchor: bool

    @property
    def operands(self) -> tuple[str, ...]:
        """The kernel's parameters for what the loop reads besides the anchor's result."""
        return tuple(f"extra_{variable(ref)}" for ref in self.reads)

    @property
    def results(self) -> tuple[str, ...]:
        """The kernel's parameters for what the loop writes."""
        return tuple(f"out_{variable(one.ref)}" for one in self.writes)

    def lines(self, made: str, grid: Grid) -> list[str]:
        """Statements that compute and store the results from the tile that `made` names.

        The tile is in the type in which the loop computes: float32, or float64 for such a result.
        """
        tile = _AnchorTile(self.loop, self.layout, grid)
        values = TritonValues(self.loop, tile, hardware=False)
        values.operand_names = [
            "" if operand.ref == self.anchor else f"extra_{variable(operand.ref)}"
            for operand in self.loop.operands
        ]
        for number, value in enumerate(self.loop.values):
            if value.op == "load" and self.loop.operands[value.operand].ref == self.anchor:
                values.sweep.made[number] = made
        place = Place()
        stores = []
        for store, name in zip(self.loop.stores, self.results, strict=True):
            text = values.use(store.value, "element")
            mask = tile.mask(store.atoms, True, place)
            guard = f", mask={mask}" if mask else ""
            stores.append(f"tl.store({name} + {tile.offset(store.atoms, place)}, {text}{guard})")
        return [*values.unit.lines, *values.row.lines, *values.sweep.lines, *stores]

    def helpers(self, text: str) -> tuple[str, ...]:
        """The shared definitions that the text of the kernel calls."""
        return helpers(text)


def find_triton_epilogue(
    program: Program, anchor: Ref, shape: tuple[str, ...]
) -> TritonEpilogue | None:
    """The largest pointwise epilogue of an anchor, or None where nothing can be fused.

    Args:
        program: the op; calls that its kernels compute already are left alone.
        anchor: the value that the anchor makes.
        shape: Python expressions for its sizes, which need not come into being.
    """
    graph = program.graph
    taken = (*(kernel.nodes for kernel in program.kernels), (anchor.ref,))
    islands, _ = find_islands(graph, taken, downstream(graph, anchor.ref))
    reading = [
        island.nodes for island in islands if any(o.ref == anchor for o in island.loop.operands)
    ]
    for nodes in sorted(reading, key=len, reverse=True):
        for kept in range(len(nodes), 0, -1):
            found = _attempt(program, anchor, shape, nodes[:kept])
            if found is not None:
                return found
    return None


def _attempt(
    program: Program, anchor: Ref, shape: tuple[str, ...], names: tuple[str, ...]
) -> TritonEpilogue | None:
    graph = program.graph
    loop = lower(graph, tuple(graph.by_name[name] for name in names))
    if isinstance(loop, str):
        return None
    loop = loop.dense
    operand = next((one for one in loop.operands if one.ref == anchor), None)
    if operand is None or not _is_pointwise(loop, operand):
        return None
    layout = partition(graph.spec_of(anchor).shape, operand.atoms, loop.domain.sizes)
    if layout is None:
        return None
    try:
        found = _made(graph, loop, layout, anchor, shape, names)
        found.lines("made", _names(len(layout)))
    except Refused:
        return None
    fits = program.runs_as_one((anchor.ref, *found.nodes))
    return found if fits else None


def _is_pointwise(loop: Loop, anchor: Operand) -> bool:
    """Whether every result has an element for each of the anchor's, made of it and its like."""
    everything = loop.domain.everything
    refs = [operand.ref for operand in loop.operands]
    return (
        anchor.atoms == everything
        and len(set(refs)) == len(refs)
        and not any(value.op in _SPECIAL for value in loop.values)
        and all(store.atoms == everything for store in loop.stores)
        and prod(loop.domain.sizes) > 0
    )


def _made(
    graph: OpGraph, loop: Loop, layout: Layout, anchor: Ref, shape: tuple[str, ...],
    names: tuple[str, ...],
) -> TritonEpilogue:  # fmt: skip
    shapes = Shapes(graph, loop, {anchor: shape})
    writes = tuple(
        Written(ref=store.ref, shape=shapes.shape(store.layout), spec=graph.spec_of(store.ref))
        for store in loop.stores
    )
    return TritonEpilogue(
        loop=loop, layout=layout, anchor=anchor, nodes=names,
        reads=tuple(operand.ref for operand in loop.operands if operand.ref != anchor),
        writes=writes, checks=shapes.checks(), operations=operations_of(loop),
        keeps_anchor=anchor in read_outside(graph, {anchor.ref, *names}),
    )  # fmt: skip


def _names(rank: int) -> Grid:
    """Any names at all: a trial shows whether every operand lies as the anchor's result does."""
    index = {(dim,): f"index{dim}" for dim in range(rank)} | {tuple(range(rank)): "at"}
    return Grid(tuple(f"size{dim}" for dim in range(rank)), index, ())
