"""From a group of the graph's calls to one fused loop, or the reason why they don't make one.

The registry of operators is filled by `knowledge.loops.pointwise`, `reductions` and `losses`; here
is what they share: the index space, how a tensor lies on it, and what has to be stored.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from knowledge.loops.form import (
    Domain,
    Extent,
    Fold,
    Loop,
    Operand,
    Refused,
    Store,
    value_type,
)
from knowledge.loops.needs import is_costly, pruned, refuse_waste
from knowledge.loops.operators import External, Given, Tensor, Work, operator_of, shape_of
from knowledge.loops.places import ELSEWHERE, Places
from knowledge.loops.shapes import Layout, fits, partition, refine, spanned
from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec

# What is smaller is copied, where it is not dense, rather than cut the loops of everything else up.
LEAST_SPACED_BYTES = 1 << 16
# How often a costly value may be computed rather than written out and read again, and how many
# values make a loop that no compiler is quick with.
COSTLY_TIMES, MOST_VALUES = 4, 1200


class Lowering(Places):
    """One attempt at lowering a group of calls onto one domain; operators call its methods."""

    def __init__(
        self,
        graph: OpGraph,
        domain: Domain,
        shapes: tuple[tuple[int, ...], ...],
        nodes: Mapping[str, Node],
    ) -> None:
        super().__init__(domain)
        self.graph = graph
        self.nodes = nodes
        # Where the call under way is wanted; None where it lies as its shape says.
        self.wanted: Layout | None = None
        self.part = 0
        self.waiting: dict[str, Refused] = {}
        self._again: dict[tuple[Ref, Layout], int] = {}
        self._full = tuple(
            layout for shape in shapes
            if (layout := partition(shape, domain.everything, domain.sizes)) is not None
        )  # fmt: skip
        self._made: dict[str, Tensor | tuple[Tensor | None, ...]] = {}
        self._known: dict[tuple[int, ...], list[Layout]] = {}

    def resolve(self, ref: Ref) -> Given:
        """The argument that a reference stands for."""
        made = self._made.get(ref.ref) if self.wanted is None else None
        if made is None:
            node = self.graph.by_name[ref.ref]
            if node.kind == "constant" and node.data is not None and len(node.data) == 1:
                value = self.build.constant(node.data[0], value_type(node.spec.dtype))
                return Tensor(value, ((),) * len(node.spec.shape), node.spec.dtype)
            return External(ref, self.graph.spec_of(ref))
        tensor = made if isinstance(made, Tensor) else made[ref.index or 0]
        if tensor is None:
            raise Refused(f"result {ref.index} of {ref.ref} is not computed in a fused loop")
        return replace(tensor, ref=ref)

    def run(self, node: Node) -> None:
        """Lower one call; what does not lie on the index space waits for who reads it elsewhere."""
        found = operator_of(node)
        self.build.hint = node.name
        try:
            self._made[node.name] = found.lower(self, node, found.bind(node, self.resolve))
        except Refused as refusal:
            self.waiting[node.name] = refusal

    def read(self, given: Given, layout: Layout) -> int:
        """The value of an argument where `layout` says, which need not be where it lies."""
        if isinstance(given, External):
            return self.at(given, layout)
        if given.layout == layout:
            return given.value
        if given.ref is None or given.ref.ref not in self.nodes:
            raise Refused("a value without a name is read elsewhere")
        return self._computed(given.ref, layout)

    def _computed(self, ref: Ref, layout: Layout) -> int:
        """The value of a call of this loop, computed anew for another place."""
        made = self._made.get(ref.ref)
        tensor = made[ref.index or 0] if isinstance(made, tuple) else made
        if tensor is not None and tensor.layout == layout:
            return tensor.value
        if (ref, layout) not in self._again:
            if len(self.build.values) > MOST_VALUES:
                raise Refused("its calls read each other in too many places")
            node = self.nodes[ref.ref]
            found, before = operator_of(node), (self.wanted, self.part, self.build.hint)
            self.wanted, self.part, self.build.hint = layout, ref.index or 0, node.name
            try:
                result = found.lower(self, node, found.bind(node, self.resolve))
            finally:
                self.wanted, self.part, self.build.hint = before
            tensor = result[ref.index or 0] if isinstance(result, tuple) else result
            assert tensor is not None
            self._again[ref, layout] = tensor.value
        return self._again[ref, layout]

    def shape(self, given: Given) -> tuple[int, ...]:
        """The shape of an argument."""
        return shape_of(given, self.sizes)

    def layout(self, shape: tuple[int, ...], givens: tuple[Given, ...]) -> Layout:
        """How a result of this shape, made from these arguments, lies on the domain.

        Raises:
            Refused: no way of laying it out agrees with where the arguments lie.
        """
        inside = [given.layout for given in givens if isinstance(given, Tensor)]
        if self.wanted is not None:
            sizes = tuple(prod(self.sizes[atom] for atom in dim) for dim in self.wanted)
            if sizes != shape or not all(fits(layout, self.wanted) for layout in inside):
                raise Refused("a result is read elsewhere in another shape")
            return self.wanted
        for candidate in self._candidates(shape):
            if all(fits(layout, candidate) for layout in inside):
                return candidate
        raise Refused(f"a tensor of shape {shape} doesn't lie on the loop's index space")

    def _candidates(self, shape: tuple[int, ...]) -> list[Layout]:
        if shape not in self._known:
            self._known[shape] = self._ways_to_lie(shape)
        return self._known[shape]

    def _ways_to_lie(self, shape: tuple[int, ...]) -> list[Layout]:
        found: list[Layout | None] = [partition(shape, self.domain.everything, self.domain.sizes)]
        for full in self._full:
            if len(shape) <= len(full):
                aligned = full[len(full) - len(shape) :]
                found.append(
                    tuple(
                        () if size == 1 else dim for size, dim in zip(shape, aligned, strict=True)
                    )
                )
        found.append(partition(shape, self.domain.rows, self.domain.sizes))
        found.append(partition(shape, self.domain.columns, self.domain.sizes))
        found.append(partition(shape, self.domain.outer, self.domain.sizes))
        right = dict.fromkeys(
            layout for layout in found
            if layout is not None
            and tuple(prod(self.domain.sizes[a] for a in dim) for dim in layout) == shape
        )  # fmt: skip
        return list(right)

    def at(self, given: Given, layout: Layout) -> int:
        """The value of an argument at a position of `layout`, to which it broadcasts."""
        if isinstance(given, Tensor):
            if not fits(given.layout, layout):
                raise Refused("an argument broadcasts in a way that crosses the loop's rows")
            return given.value
        shape = given.spec.shape
        if len(shape) > len(layout):
            raise Refused("an argument has more dimensions than the result")
        aligned = layout[len(layout) - len(shape) :]
        own = tuple(() if size == 1 else dim for size, dim in zip(shape, aligned, strict=True))
        if tuple(prod(self.sizes[atom] for atom in dim) for dim in own) != shape:
            raise Refused("an argument does not broadcast to the result")
        if given.ref.ref in self.nodes:
            return self._computed(given.ref, own)
        node = self.graph.by_name[given.ref.ref]
        if node.kind == "constant" and node.data is not None and len(node.data) == 1:
            return self.build.constant(node.data[0], value_type(node.spec.dtype))
        return self._loaded(given, own)

    def _loaded(self, given: External, own: Layout) -> int:
        """An element of a tensor from outside, dimensions elsewhere at their indices."""
        atoms = spanned(own)
        steps = [atom for atom in atoms if atom < ELSEWHERE]
        if steps != sorted(steps):
            raise Refused("an argument is read against the order of the loop")
        if len(steps) == len(atoms):
            strides = self._strides(given.spec, own)
            return self.build.load(given.ref, given.spec.dtype, atoms, strides)
        renamed: list[int] = []
        extents: list[Extent] = []
        indices: list[int] = []
        for atom in atoms:
            if atom >= ELSEWHERE:
                extent, index = self.elsewhere[atom - ELSEWHERE]
                indices.append(self.number(index))
                extents.append(extent)
                atom = -len(extents)
            renamed.append(atom)
        operand = Operand(given.ref, given.spec.dtype, tuple(renamed), (), tuple(extents))
        return self.build.load_at(operand, tuple(indices))

    def _strides(self, spec: TensorSpec, layout: Layout) -> tuple[int, ...]:
        """The stride of every atom of an argument that is better read as it lies.

        Empty where it is dense, so small that a copy costs nothing, or lies across the innermost
        loop, in which vector loads want neighbours.
        """
        if spec.nbytes < LEAST_SPACED_BYTES or spec.contiguous:
            return ()
        sizes = self.domain.sizes
        found = tuple(
            step * prod(sizes[atom] for atom in dim[place + 1 :])
            for dim, step in zip(layout, spec.strides, strict=True)
            for place in range(len(dim))
        )
        innermost = spanned(layout)[-1]
        return found if innermost in self.domain.outer or found[-1] == 1 else ()

    def place(self, given: Given) -> Tensor:
        """An argument on its own, wherever it lies."""
        if isinstance(given, Tensor):
            return given
        layout = self.layout(given.spec.shape, ())
        return Tensor(self.at(given, layout), layout, given.spec.dtype)

    def number_or(self, given: Any, layout: Layout) -> int:
        """A Python number as a constant, or a tensor's value at `layout`."""
        if isinstance(given, bool):
            return self.build.constant(given, "bool")
        if isinstance(given, int):
            return self.build.constant(given, "int64_t")
        if isinstance(given, float):
            return self.build.constant(given, "float")
        if isinstance(given, Tensor | External):
            return self.at(given, layout)
        raise Refused(f"an argument of kind {type(given).__name__}")

    def reduce(self, fold: Fold, value: int, atoms: tuple[int, ...], layout: Layout) -> int:
        """Reduce a value that lies on `layout` over some of its atoms.

        Raises:
            Refused: these are neither the columns of a row, nor all rows, nor everything.
        """
        if self.wanted is not None:
            raise Refused("a reduction is read elsewhere than where it lies")
        if not atoms:
            return value
        if set(atoms) == set(self.domain.columns) and self.domain.structured:
            return self.build.fold(fold, value)
        whole = set(atoms) == set(spanned(layout))
        if whole and set(atoms) == set(self.domain.everything):
            return self.build.total(fold, value, self.domain.everything)
        if whole and self.domain.structured and set(atoms) == set(self.domain.rows):
            return self.build.total(fold, value, self.domain.rows)
        raise Refused("it reduces over something else than the loop's rows")

    def stores(self, names: set[str]) -> tuple[Store, ...]:
        """What others read of the calls in `names`, as stores."""
        found: list[Store] = []
        for ref in read_outside(self.graph, names):
            if ref.ref in self.waiting:
                raise self.waiting[ref.ref]
            tensor = self.resolve(ref)
            assert isinstance(tensor, Tensor)
            spec = self.graph.spec_of(ref)
            atoms = spanned(tensor.layout)
            if list(atoms) != sorted(atoms):
                raise Refused("a result would be written against the order of the loop")
            value_type(spec.dtype)
            found.append(Store(ref, tensor.value, spec.dtype, tensor.layout))
        if not found:
            raise Refused("nothing reads the result")
        self._refuse_repeats()
        return (*found, *self.build.complained())

    def _refuse_repeats(self) -> None:
        """Refuse to compute again and again what is costly: better written out once."""
        times = Counter(ref.ref for ref, _ in self._again)
        times.update(name for name in self._made if name in times)
        costly = {value.hint for value in self.build.values if is_costly(value)}
        for name, count in times.items():
            if name in costly and count > COSTLY_TIMES:
                raise Refused(f"{name} would be computed in {count} places")


def read_outside(graph: OpGraph, names: set[str]) -> list[Ref]:
    """The values of the calls in `names` that the rest of the graph, or the caller, reads."""
    found: dict[Ref, None] = {}
    readers = {user.name: user for name in names for user in graph.users[name]}
    for reader in sorted(readers.keys() - names, key=graph.position.__getitem__):
        found.update({ref: None for ref in readers[reader].refs if ref.ref in names})
    found.update({ref: None for ref in graph.outputs if ref.ref in names})
    for text in graph.mutations.values():
        name, _, index = text.partition("[")
        if name in names:
            found[Ref(ref=name, index=int(index[:-1]) if index else None)] = None
    return list(found)


def lower(graph: OpGraph, nodes: tuple[Node, ...], columns: int | None = None) -> Loop | str:
    """The fused loop of these calls (in execution order), or why there is none, in one sentence.

    With `columns`, a row is the last so many elements: the loop must fit rows that are given.
    """
    try:
        loop = _lower(graph, nodes, columns)
        refuse_waste(loop)
    except Refused as refusal:
        return str(refusal)
    return loop


def _lower(graph: OpGraph, nodes: tuple[Node, ...], columns: int | None) -> Loop:
    works = {node.name: measure(graph, node) for node in nodes}
    try:
        return _on(graph, nodes, list(works.values()), columns)
    except Refused:
        # What is read in part only may be larger than what the loop makes.
        made = {ref.ref for ref in read_outside(graph, set(works))}
        kept = [work for name, work in works.items() if name in made]
        sizes = [max((prod(work.shape) for work in some), default=0)
                 for some in (works.values(), kept)]  # fmt: skip
        if sizes[0] == sizes[1]:
            raise
    return _on(graph, nodes, kept, columns)


def _on(graph: OpGraph, nodes: tuple[Node, ...], works: list[Work], columns: int | None) -> Loop:
    """The loop over the largest of some works, with rows of so many elements if that is given."""
    elements = max((prod(work.shape) for work in works), default=0)
    if elements == 0:
        raise Refused("there are no elements")
    largest = [work for work in works if prod(work.shape) == elements]
    shapes = tuple(dict.fromkeys(work.shape for work in largest))
    domain = _domain(largest, shapes)
    if columns is not None:
        domain = _with_columns(domain, columns)
    loop = _run(graph, nodes, domain, shapes)
    if not domain.structured and columns is None:
        split = _split(loop)
        if split != domain.first:
            loop = _run(graph, nodes, replace(domain, first=split), shapes)
    return loop


def measure(graph: OpGraph, node: Node) -> Work:
    """What one call works through.

    Raises:
        Refused: nothing is known about its operator.
    """
    found = operator_of(node)
    return found.work(node, found.bind(node, lambda ref: External(ref, graph.spec_of(ref))))


def _domain(largest: list[Work], shapes: tuple[tuple[int, ...], ...]) -> Domain:
    sizes = refine(list(shapes))
    everything = tuple(range(len(sizes)))
    columns: set[tuple[int, ...]] = set()
    for work in largest:
        if work.first is not None:
            layout = partition(work.shape, everything, sizes)
            assert layout is not None
            columns.add(spanned(layout[work.first : work.last]))
    if len(columns) > 1:
        raise Refused("its parts reduce over different dimensions")
    if not columns:
        return Domain(sizes, 0, len(sizes), structured=False)
    (atoms,) = columns
    return Domain(sizes, atoms[0], atoms[-1] + 1, structured=True)


def _run(
    graph: OpGraph, nodes: tuple[Node, ...], domain: Domain, shapes: tuple[tuple[int, ...], ...]
) -> Loop:
    lowering = Lowering(graph, domain, shapes, {node.name: node for node in nodes})
    for node in nodes:
        lowering.run(node)
    stores = lowering.stores({node.name for node in nodes})
    build = lowering.build
    return pruned(
        Loop(domain, tuple(build.values), tuple(build.operands), stores, frozenset(build.fixed))
    )


def _with_columns(domain: Domain, columns: int) -> Domain:
    """The domain with rows of so many elements."""
    first = len(domain.sizes)
    while first and prod(domain.sizes[first:]) < columns:
        first -= 1
    if prod(domain.sizes[first:]) != columns:
        raise Refused("its dimensions don't end where a row does")
    if domain.structured and (domain.first, domain.last) != (first, len(domain.sizes)):
        raise Refused("it reduces over something else than whole rows")
    return replace(domain, first=first, last=len(domain.sizes))


def _split(loop: Loop) -> int:
    """Where a pointwise loop's innermost run starts, along which tensors are read in step."""
    last = len(loop.domain.sizes) - 1
    split = last
    while split > 0 and loop.together(split - 1, split):
        split -= 1
    return max(split, 0)
