"""From a group of the graph's calls to one fused loop, or the reason why they don't make one.

The registry of operators is filled by `knowledge.loops.pointwise`, `reductions` and `losses`; here
is what they share: the index space, how a tensor lies on it, and what has to be stored.
"""

from dataclasses import replace
from math import prod
from typing import Any

from knowledge.loops.form import Builder, Domain, Fold, Loop, Refused, Store, Value, value_type
from knowledge.loops.operators import External, Given, Tensor, Work, operator_of, shape_of
from knowledge.loops.scalars import SCALARS
from knowledge.loops.shapes import Layout, fits, partition, refine, spanned
from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec

# What is smaller is copied, where it is not dense, rather than cut the loops of everything else up.
LEAST_SPACED_BYTES = 1 << 16


class Lowering:
    """One attempt at lowering a group of calls onto one domain; operators call its methods."""

    def __init__(self, graph: OpGraph, domain: Domain, shapes: tuple[tuple[int, ...], ...]) -> None:
        self.graph = graph
        self.domain = domain
        self.build = Builder(domain)
        self._full = tuple(
            layout for shape in shapes
            if (layout := partition(shape, domain.everything, domain.sizes)) is not None
        )  # fmt: skip
        self._made: dict[str, Tensor | tuple[Tensor | None, ...]] = {}

    def resolve(self, ref: Ref) -> Given:
        """The argument that a reference stands for."""
        made = self._made.get(ref.ref)
        if made is None:
            node = self.graph.by_name[ref.ref]
            if node.kind == "constant" and node.data is not None and len(node.data) == 1:
                value = self.build.constant(node.data[0], value_type(node.spec.dtype))
                return Tensor(value, ((),) * len(node.spec.shape), node.spec.dtype)
            return External(ref, self.graph.spec_of(ref))
        tensor = made if isinstance(made, Tensor) else made[ref.index or 0]
        if tensor is None:
            raise Refused(f"result {ref.index} of {ref.ref} is not computed in a fused loop")
        return tensor

    def run(self, node: Node) -> None:
        """Lower one call."""
        found = operator_of(node)
        self.build.hint = node.name
        self._made[node.name] = found.lower(self, node, found.bind(node, self.resolve))

    def shape(self, given: Given) -> tuple[int, ...]:
        """The shape of an argument."""
        return shape_of(given, self.domain)

    def layout(self, shape: tuple[int, ...], givens: tuple[Given, ...]) -> Layout:
        """How a result of this shape, made from these arguments, lies on the domain.

        Raises:
            Refused: no way of laying it out agrees with where the arguments lie.
        """
        inside = [given.layout for given in givens if isinstance(given, Tensor)]
        for candidate in self._candidates(shape):
            if all(fits(layout, candidate) for layout in inside):
                return candidate
        raise Refused(f"a tensor of shape {shape} doesn't lie on the loop's index space")

    def _candidates(self, shape: tuple[int, ...]) -> list[Layout]:
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
        right = [
            layout for layout in found
            if layout is not None
            and tuple(prod(self.domain.sizes[a] for a in dim) for dim in layout) == shape
        ]  # fmt: skip
        return list(dict.fromkeys(right))

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
        if tuple(prod(self.domain.sizes[atom] for atom in dim) for dim in own) != shape:
            raise Refused("an argument does not broadcast to the result")
        atoms = spanned(own)
        if list(atoms) != sorted(atoms):
            raise Refused("an argument is read against the order of the loop")
        strides = self._strides(given.spec, own)
        return self.build.load(given.ref, given.spec.dtype, atoms, strides)

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
        return tuple(found)


def read_outside(graph: OpGraph, names: set[str]) -> list[Ref]:
    """The values of the calls in `names` that the rest of the graph, or the caller, reads."""
    found: dict[Ref, None] = {}
    for node in graph.nodes:
        if node.name not in names:
            found.update({ref: None for ref in node.refs if ref.ref in names})
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
        _refuse_waste(loop)
    except Refused as refusal:
        return str(refusal)
    return loop


def _lower(graph: OpGraph, nodes: tuple[Node, ...], columns: int | None) -> Loop:
    works = [measure(graph, node) for node in nodes]
    elements = max(prod(work.shape) for work in works)
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
    lowering = Lowering(graph, domain, shapes)
    for node in nodes:
        lowering.run(node)
    stores = lowering.stores({node.name for node in nodes})
    return pruned(
        Loop(domain, tuple(lowering.build.values), tuple(lowering.build.operands), stores)
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


def pruned(loop: Loop) -> Loop:
    """The loop without values, and then operands, that nothing needs."""
    needed: set[int] = set()
    stack = [store.value for store in loop.stores]
    while stack:
        number = stack.pop()
        if number not in needed:
            needed.add(number)
            stack += loop.values[number].args
    kept = sorted(needed)
    used = sorted({loop.values[n].operand for n in kept if loop.values[n].operand >= 0})
    values = tuple(_renumbered(loop.values[n], kept, used) for n in kept)
    stores = tuple(replace(store, value=kept.index(store.value)) for store in loop.stores)
    return Loop(loop.domain, values, tuple(loop.operands[n] for n in used), stores)


def _renumbered(value: Value, kept: list[int], used: list[int]) -> Value:
    args = tuple(kept.index(arg) for arg in value.args)
    operand = used.index(value.operand) if value.operand >= 0 else -1
    return replace(value, args=args, operand=operand)


def _refuse_waste(loop: Loop) -> None:
    """Refuse a loop that would compute something costly again for every row.

    A value along the columns alone, such as exp of a bias, is cheaper computed once, on its own.
    """
    outside = set(loop.domain.rows)
    if loop.domain.count(loop.domain.rows) == 1:
        return
    spans = atoms_of_values(loop)
    for value, atoms in zip(loop.values, spans, strict=True):
        if value.stage == "element" and is_costly(value) and not atoms & outside:
            raise Refused(f"{value.op} along the columns would be computed again in every row")
        if value.op == "fold" and not atoms & outside:
            raise Refused(f"a {value.fold} along the columns would be computed in every row")


def atoms_of_values(loop: Loop) -> list[frozenset[int]]:
    """For each value, the atoms on which it depends."""
    spans: list[frozenset[int]] = []
    for value in loop.values:
        span = frozenset(value.atoms) if value.op == "load" else frozenset()
        for arg in value.args:
            span |= spans[arg]
        if value.op in ("fold", "gather"):
            span -= frozenset(loop.domain.columns)
        spans.append(span)
    return spans


def is_costly(value: Value) -> bool:
    """Whether a value takes more than a few instructions."""
    return value.op in SCALARS and SCALARS[value.op].costly
