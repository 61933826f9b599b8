"""From a fused loop to a `Kernel`: its C++, and Python expressions for sizes, shapes and checks.

Sizes are taken at run time from a tensor that spans the whole index space, so that a batch may
grow; what could not be expressed that way is checked instead.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace

from knowledge.emit_cuda import module_text
from knowledge.loops.cpp import print_cpp
from knowledge.loops.cuda import print_cuda
from knowledge.loops.cuda_shape import CudaWish
from knowledge.loops.form import Extent, Loop, Operand, Refused, Store
from knowledge.loops.indices import groups_of, steps_of
from knowledge.loops.islands import Island
from knowledge.loops.needs import atoms_of_values, is_costly
from knowledge.loops.plan import Options
from knowledge.loops.shapes import Layout, partition
from knowledge.loops.short_rows import form_of, with_short_rows
from knowledge.loops.triton import Printed, print_triton
from knowledge.loops.triton_tile import Wish
from knowledge.opgraph import DTYPE_BYTES, OpGraph, Ref, TensorSpec
from knowledge.program import Backend, Check, Kernel, Size, Written, variable


def _term(expression: str) -> str:
    """An expression that may stand in a product."""
    return expression if re.fullmatch(r"[\w.\[\]]+", expression) else f"({expression})"


class Shapes:
    """Python expressions for the sizes of a loop's index space.

    `known` gives the sizes of tensors that never come into being, an expression a dimension.
    """

    def __init__(
        self, graph: OpGraph, loop: Loop, known: dict[Ref, tuple[str, ...]] | None = None
    ) -> None:
        self.graph, self.loop, self.known = graph, loop, known or {}
        self.atoms = [str(size) for size in loop.domain.sizes]
        self.leader: Operand | None = None
        everything = loop.domain.everything
        full = (operand for operand in loop.operands if operand.atoms == everything)
        self.leader = next(full, None)
        self.leading: Layout = ()
        if self.leader is not None:
            self.leading = self._layout(self.leader)
        sized: set[int] = set()
        for operand in [self.leader] if self.leader is not None else loop.operands:
            for dim, atoms in enumerate(self._layout(operand)):
                if len(atoms) == 1 and atoms[0] >= 0 and atoms[0] not in sized:
                    sized.add(atoms[0])
                    self.atoms[atoms[0]] = self._size(operand.ref, dim)

    def _layout(self, operand: Operand) -> Layout:
        shape = self.graph.spec_of(operand.ref).shape
        sizes = [extent.size for extent in operand.extents]
        # Negative atoms count from the end.
        layout = partition(shape, operand.atoms, (*self.loop.domain.sizes, *sizes[::-1]))
        if layout is None:
            raise Refused("an operand's shape does not follow the index space")
        return layout

    def _size(self, ref: Ref, dim: int) -> str:
        return _term(self.known[ref][dim]) if ref in self.known else f"{variable(ref)}.shape[{dim}]"

    def _whole(self, ref: Ref) -> str:
        """The shape of a tensor, as an expression."""
        if ref not in self.known:
            return f"{variable(ref)}.shape"
        sizes = self.known[ref]
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"

    def product(self, atoms: tuple[int, ...]) -> str:
        """The number of elements over some atoms."""
        whole = self.leader is not None and atoms == self.loop.domain.everything
        if whole and self.leader is not None and self.leader.ref not in self.known:
            return f"{variable(self.leader.ref)}.numel()"
        if whole and self.leader is not None:
            return " * ".join(_term(size) for size in self.known[self.leader.ref]) or "1"
        return " * ".join(self.atoms[atom] for atom in atoms) or "1"

    def shape(self, layout: Layout, extents: tuple[Extent, ...] = ()) -> str:
        """The shape of a tensor laid out so, as a tuple."""
        if self.leader is not None and layout == self.leading:
            return self._whole(self.leader.ref)
        dims = [self._extended(dim, extents) if dim else "1" for dim in layout]
        return f"({', '.join(dims)}{',' if len(dims) == 1 else ''})"

    def _extended(self, dim: tuple[int, ...], extents: tuple[Extent, ...]) -> str:
        if dim[0] >= 0:
            return self.product(dim)
        extent = extents[-1 - dim[0]]
        return self.product(extent.like) if extent.like else str(extent.size)

    def steps(self, operand: Operand) -> tuple[Size, ...]:
        """The strides with which a loop reads an operand as it lies."""
        return tuple(
            Size(
                name=f"{variable(operand.ref)}_{group.name}",
                expression=self._stride(operand, group.atoms[-1]),
            )
            for group in steps_of(self.loop, operand)
        )

    def lies_so(self, operand: Operand) -> str:
        """What must hold of an operand's strides, as a condition, so that it is read as it lies."""
        name, terms = variable(operand.ref), []
        layout = self._layout(operand)
        groups = [group for part in groups_of(self.loop) for group in part]
        for group in groups:
            dims = [dim for dim, atoms in enumerate(layout) if set(atoms) & set(group.atoms)]
            terms += [
                f"{name}.stride({dim}) == {name}.stride({after}) * {name}.shape[{after}]"
                for dim, after in itertools.pairwise(dims)
            ]
        if operand.strides[-1] == 1:
            last = max(dim for dim, atoms in enumerate(layout) if atoms)
            terms.append(f"{name}.stride({last}) == 1")
        return " and ".join(terms) or "True"

    def _stride(self, operand: Operand, atom: int) -> str:
        for dim, atoms in enumerate(self._layout(operand)):
            if atom in atoms:
                later = [self.atoms[one] for one in atoms[atoms.index(atom) + 1 :]]
                return " * ".join([f"{variable(operand.ref)}.stride({dim})", *later])
        raise AssertionError(f"{operand} does not span {atom}")

    def checks(self) -> tuple[Check, ...]:
        """What must hold of the operands' shapes for the kernel to be right."""
        found: list[Check] = []
        if self.leader is not None:
            name, shape = variable(self.leader.ref), self.graph.spec_of(self.leader.ref).shape
            found += [
                Check(
                    left=self._size(self.leader.ref, dim),
                    right=str(shape[dim]),
                    sentence=f"dimension {dim} of {name} should be {shape[dim]}",
                )
                for dim, atoms in enumerate(self.leading)
                if len(atoms) != 1
            ]
        for atom in sorted(self.loop.fixed):
            size = str(self.loop.domain.sizes[atom])
            if self.atoms[atom] != size:
                sentence = f"a size that was traced as {size} is another"
                found.append(Check(left=self.atoms[atom], right=size, sentence=sentence))
        for operand in self.loop.operands:
            if operand is self.leader or operand.ref in self.known:
                continue
            name = variable(operand.ref)
            expected = self.shape(self._layout(operand), operand.extents)
            own = [f"{name}.shape[{dim}]" for dim in range(len(self._layout(operand)))]
            if expected == f"({', '.join(own)}{',' if len(own) == 1 else ''})":
                continue
            wanted = expected if expected.endswith(".shape") else f"torch.Size({expected})"
            traced = list(self.graph.spec_of(operand.ref).shape)
            sentence = (
                f"{name} does not go with the other tensors; its shape was traced as {traced}"
            )
            found.append(Check(left=f"{name}.shape", right=wanted, sentence=sentence))
        return tuple(dict.fromkeys(found))


def make_kernel(
    graph: OpGraph, island: Island, name: str, options: Options, wish: Wish | CudaWish | None = None
) -> Kernel | str:
    """The kernel that computes an island, or why there is none.

    It is printed in C++, or in Triton or CUDA where the kind of wish says so.
    """
    nodes = island.nodes
    # CUDA C++ reads dense tensors alone.
    loop = island.loop.dense if isinstance(wish, CudaWish) else island.loop
    refs = [operand.ref for operand in loop.operands]
    if len(set(refs)) < len(refs):
        # A tensor that is read in two ways is made dense for both.
        loop = loop.dense if wish is None else _dense_where(loop, lambda ref: refs.count(ref) > 1)
    if wish is None:
        loop = with_short_rows(loop)
    language, printed = _printed(loop, name, _note(graph, nodes), options, wish)
    if isinstance(printed, Refused):
        return str(printed)
    try:
        shapes = Shapes(graph, loop)
        checks = shapes.checks()
    except Refused as refusal:
        return str(refusal)
    writes = tuple(
        Written(ref=store.ref, shape=shapes.shape(store.layout), spec=_spec(graph, store))
        for store in loop.stores
    )
    groups = [group for part in groups_of(loop) for group in part]
    sizes = tuple(Size(name=group.name, expression=shapes.product(group.atoms)) for group in groups)
    sizes += tuple(step for operand in loop.operands for step in shapes.steps(operand))
    reads: tuple[Ref, ...] = tuple(operand.ref for operand in loop.operands)
    return Kernel(
        name=name,
        source=printed.source,
        language=language,
        helpers=printed.helpers,
        signature="p" * (len(reads) + len(writes)) + "i" * len(sizes),
        nodes=nodes,
        reads=reads,
        writes=writes,
        sizes=sizes,
        checks=checks,
        limits=_limits(shapes, printed.longest),
        spaced={
            variable(operand.ref): shapes.lies_so(operand)
            for operand in loop.operands
            if operand.strides
        },
        complaints={store.ref.ref: store.complaint for store in loop.stores if store.complaint},
        note=_note(graph, nodes),
        moved_bytes=_read_bytes(graph, loop)
        + sum(written.spec.nbytes for written in writes)
        + (_copied_bytes(graph, loop) if wish is not None else 0),
        programs=printed.programs,
        operations=operations_of(loop) + (row_overhead(loop) if language == "cpp" else 0),
    )


def _limits(shapes: Shapes, longest: int) -> tuple[Check, ...]:
    """That rows have elements, and no more than a kernel takes; nothing where it takes any."""
    if not longest:
        return ()
    columns = shapes.product(shapes.loop.domain.columns)
    sentence = f"this kernel takes rows of 1 to {longest} elements"
    return (Check(left=f"(0 < {columns} <= {longest})", right="True", sentence=sentence),)


def _spec(graph: OpGraph, store: Store) -> TensorSpec:
    if store.complaint:
        return TensorSpec(shape=(), dtype=store.dtype, strides=())
    return graph.spec_of(store.ref)


def _read_bytes(graph: OpGraph, loop: Loop) -> int:
    """Bytes that come from memory: of a tensor read by an index, no more than the rows read."""
    found: dict[Ref, int] = {}
    for value, atoms in zip(loop.values, atoms_of_values(loop), strict=True):
        if value.op == "load":
            spec = graph.spec_of(loop.operands[value.operand].ref)
            each = DTYPE_BYTES[spec.dtype]
            count = loop.domain.count(tuple(atoms))
            ref = loop.operands[value.operand].ref
            found[ref] = min(spec.nbytes, found.get(ref, 0) + count * each)
    return sum(found.values())


def _copied_bytes(graph: OpGraph, loop: Loop) -> int:
    """Bytes of the copies that are made of what does not lie densely, and is not read as it lies.

    Each is read and written once before the loop reads it.
    """
    refs = {operand.ref for operand in loop.operands if not operand.strides}
    specs = [graph.spec_of(ref) for ref in refs]
    return sum(2 * spec.nbytes for spec in specs if not spec.contiguous)


def _dense_where(loop: Loop, chosen: Callable[[Ref], bool]) -> Loop:
    """The loop with some tensors made dense first."""
    operands = (
        replace(operand, strides=()) if chosen(operand.ref) else operand
        for operand in loop.operands
    )
    return replace(loop, operands=tuple(operands))


def _printed(
    loop: Loop, name: str, note: str, options: Options, wish: Wish | CudaWish | None
) -> tuple[Backend, Printed | Refused]:
    if isinstance(wish, Wish):
        return "triton", print_triton(loop, name, note, options, wish)
    if isinstance(wish, CudaWish):
        cuda = print_cuda(loop, name, options, wish)
        if isinstance(cuda, Refused):
            return "cuda", cuda
        return "cuda", Printed(module_text(cuda, name, note), ())
    source = print_cpp(loop, name, options)
    return "cpp", source if isinstance(source, Refused) else Printed(source, ())


# A polynomial exponential is about this many multiply-adds.
COSTLY_OPERATIONS = 16


def operations_of(loop: Loop) -> int:
    """Scalar operations at the traced sizes; those of a row or of the whole loop hardly count."""
    each = sum(
        COSTLY_OPERATIONS if is_costly(value) else 1
        for value in loop.values
        if (value.stage == "element" and value.op not in ("position", "within"))
        or value.op in ("fold", "total")
    )
    return each * loop.domain.count(loop.domain.everything)


# What a row takes besides its elements, in operations of the peak: a nanosecond, and two for each
# division that finds where it lies. What is shorter than a vector is done element by element; what
# goes through a tile is transposed on its way in and out.
ROW_OPERATIONS, DIVISION_OPERATIONS, TRANSPOSED_OPERATIONS = 64, 120, 16
VECTOR, SCALAR_OPERATIONS = 16, 32


def row_overhead(loop: Loop) -> int:
    """Operations that a loop in C++ spends on its rows as such, at the traced sizes.

    None where elements are one run, or rows lie side by side in vectors from the start.
    """
    outer, columns, inner = groups_of(loop)
    domain, form = loop.domain, form_of(loop)
    if form == "tiles":
        tensors = [one.atoms for one in loop.operands] + [one.atoms for one in loop.stores]
        elements = domain.count(domain.everything)
        return TRANSPOSED_OPERATIONS * elements * tensors.count(domain.everything)
    if inner or not (outer or domain.structured or len(columns) > 1):
        return 0
    divisions = max(2 * len(outer) - 2, 0)
    if form == "turns":
        columns, divisions = columns[:-1], divisions if domain.structured else 0
    rows = domain.count(domain.outer)
    overhead = rows * (ROW_OPERATIONS + DIVISION_OPERATIONS * divisions)
    short = columns and domain.count(columns[-1].atoms) < VECTOR
    return overhead + (operations_of(loop) * (SCALAR_OPERATIONS - 1) if short else 0)


def _note(graph: OpGraph, nodes: tuple[str, ...]) -> str:
    operators = [graph.by_name[name].target.split(".")[1].strip("_") for name in nodes]
    return ", ".join(operators)
