"""Changing an op graph: new nodes in place of old ones, what nothing reads left out; all pure."""

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from math import prod
from typing import Any

from knowledge.opgraph import Argument, Node, OpGraph, Ref, TensorSpec


def dense(shape: Iterable[int], dtype: str) -> TensorSpec:
    """A tensor of this shape in row-major order."""
    sizes = tuple(shape)
    strides = tuple(prod(sizes[position + 1 :]) for position in range(len(sizes)))
    return TensorSpec(shape=sizes, dtype=dtype, strides=strides)


class Writer:
    """Makes the calls that replace others; their names are new in the graph."""

    def __init__(self, graph: OpGraph) -> None:
        self.graph = graph
        self._made: dict[str, Node] = {}

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The calls, in the order in which they were made."""
        return tuple(self._made.values())

    def call(
        self, target: str, args: tuple[Argument, ...], shape: Iterable[int], dtype: str
    ) -> Ref:
        """A call that makes one tensor."""
        return self._add(target, args, dense(shape, dtype))

    def several(
        self, target: str, args: tuple[Argument, ...], results: tuple[TensorSpec, ...]
    ) -> tuple[Ref, ...]:
        """A call that makes several tensors."""
        made = self._add(target, args, results)
        return tuple(Ref(ref=made.ref, index=index) for index in range(len(results)))

    def _add(
        self, target: str, args: tuple[Argument, ...],
        result: TensorSpec | tuple[TensorSpec, ...],
    ) -> Ref:  # fmt: skip
        stem = target.split(".")[1].strip("_")
        number = 0
        while (name := f"{stem}_alg{number}") in self.graph.by_name or name in self._made:
            number += 1
        self._made[name] = Node(name=name, kind="call", target=target, args=args, result=result)
        return Ref(ref=name)

    def permuted(self, ref: Ref, order: list[int]) -> Ref:
        """A view with its dimensions in another order; the value itself if it is the same one."""
        if order == sorted(order):
            return ref
        spec = self.spec(ref)
        shape, strides = ([given[dim] for dim in order] for given in (spec.shape, spec.strides))
        viewed = TensorSpec(shape=tuple(shape), dtype=spec.dtype, strides=tuple(strides))
        return self._add("aten.permute.default", (ref, [*order]), viewed)

    def sliced(self, ref: Ref, dim: int, begin: int, end: int) -> Ref:
        """What lies at [begin, end) along a dimension; the tensor itself where that is all."""
        spec = self.spec(ref)
        if (begin, end) == (0, spec.shape[dim]):
            return ref
        shape = (*spec.shape[:dim], end - begin, *spec.shape[dim + 1 :])
        viewed = TensorSpec(shape=shape, dtype=spec.dtype, strides=spec.strides)
        return self._add("aten.slice.Tensor", (ref, dim, begin, end), viewed)

    def stacked(self, refs: Sequence[Ref], dim: int) -> Ref:
        """Tensors of one shape laid side by side along a new dimension."""
        spec = self.spec(refs[0])
        shape = (*spec.shape[:dim], len(refs), *spec.shape[dim:])
        return self.call("aten.stack.default", ([*refs], dim), shape, spec.dtype)

    def spec(self, ref: Ref) -> TensorSpec:
        """The tensor behind a reference to the graph or to a new call."""
        node = self._made.get(ref.ref)
        if node is None:
            return self.graph.spec_of(ref)
        made = node.result[ref.index or 0] if isinstance(node.result, tuple) else node.result
        assert isinstance(made, TensorSpec)
        return made


def replace(graph: OpGraph, writer: Writer, place: str, changed: Mapping[Ref, Ref]) -> OpGraph:
    """The graph with the writer's calls put before node `place`, and every reference changed.

    What nothing reads after that is left out. Where a new call reads what is made after that place,
    it comes later, and so does what waits for it.
    """
    names = {ref.ref for ref in changed}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name == place:
            nodes += writer.nodes
        nodes.append(_redirected(node, changed, names))
    here = graph.position[place]
    reads = (graph.position.get(ref.ref, 0) for node in writer.nodes for ref in node.refs)
    if any(position >= here for position in reads):
        nodes = in_order(nodes)
    mutations = {
        path: _text(changed.get(_ref(text), _ref(text))) for path, text in graph.mutations.items()
    }
    outputs = tuple(changed.get(ref, ref) for ref in graph.outputs)
    return without_dead(_rebuilt(graph, tuple(nodes), outputs, mutations))


def _rebuilt(
    graph: OpGraph, nodes: tuple[Node, ...], outputs: tuple[Ref, ...], mutations: dict[str, str]
) -> OpGraph:
    """The graph with other nodes, returning other values."""
    return OpGraph(
        nodes=nodes, outputs=outputs, returns=graph.returns, mutations=mutations,
        training=graph.training,
    )  # fmt: skip


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """Nodes after what they read, and else in the order given; what draws numbers keeps its own."""
    number = {node.name: at for at, node in enumerate(nodes)}
    waits = [{number[ref.ref] for ref in node.refs} for node in nodes]
    drawing = [at for at, node in enumerate(nodes) if node.kind == "call" and is_random(node)]
    for before, after in pairwise(drawing):
        waits[after].add(before)
    readers: list[list[int]] = [[] for _ in nodes]
    for at, others in enumerate(waits):
        for other in others:
            readers[other].append(at)
    ready = [at for at, others in enumerate(waits) if not others]
    found: list[Node] = []
    while ready:
        at = heappop(ready)
        found.append(nodes[at])
        for reader in readers[at]:
            waits[reader].discard(at)
            if not waits[reader]:
                heappush(ready, reader)
    assert len(found) == len(nodes), "calls wait for each other"
    return found


def _redirected(node: Node, changed: Mapping[Ref, Ref], names: set[str]) -> Node:
    # The names first: they are quicker to compare.
    if not any(ref.ref in names and ref in changed for ref in node.refs):
        return node
    return node.model_copy(
        update={
            "args": tuple(_argument(value, changed) for value in node.args),
            "kwargs": {key: _argument(value, changed) for key, value in node.kwargs.items()},
        }
    )


def _argument(value: Any, changed: Mapping[Ref, Ref]) -> Any:
    if isinstance(value, Ref):
        return changed.get(value, value)
    if isinstance(value, list):
        return [_argument(item, changed) for item in value]
    return value


def _ref(text: str) -> Ref:
    name, _, index = text.partition("[")
    return Ref(ref=name, index=int(index[:-1]) if index else None)


def _text(ref: Ref) -> str:
    return ref.ref if ref.index is None else f"{ref.ref}[{ref.index}]"


# Calls that draw random numbers: leaving one out would change what later ones draw.
RANDOM = ("dropout", "rand", "bernoulli", "normal", "uniform", "rrelu", "multinomial", "poisson.")


def is_random(node: Node) -> bool:
    """Whether a call draws random numbers."""
    name = node.target.removeprefix("aten.")
    return any(word in name for word in RANDOM)


def without_dead(graph: OpGraph) -> OpGraph:
    """The graph without calls that nothing reads; inputs, parameters and random calls stay."""
    live = {ref.ref for ref in graph.outputs}
    live |= {_ref(text).ref for text in graph.mutations.values()}
    for node in reversed(graph.nodes):
        if node.name in live or (node.kind == "call" and is_random(node)):
            live.add(node.name)
            live |= {ref.ref for ref in node.refs}
    kept = tuple(node for node in graph.nodes if node.kind != "call" or node.name in live)
    return _rebuilt(graph, kept, graph.outputs, graph.mutations)


def read_once(graph: OpGraph, ref: Ref) -> bool:
    """Whether exactly one call reads a value, and neither the caller nor a buffer does."""
    if any(out.ref == ref.ref for out in graph.outputs):
        return False
    if any(_ref(text).ref == ref.ref for text in graph.mutations.values()):
        return False
    return len(graph.users[ref.ref]) == 1


def producer(graph: OpGraph, argument: Any) -> Node | None:
    """The call that makes an argument, None for anything else."""
    if not isinstance(argument, Ref):
        return None
    node = graph.by_name[argument.ref]
    return node if node.kind == "call" else None


def operator(node: Node | None) -> str:
    """A call's operator without namespace and overload, e.g. `linear`; empty for None."""
    parts = node.target.split(".") if node is not None else []
    return parts[1] if len(parts) == 3 and parts[0] == "aten" else ""


def argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    """An argument given by position or by name."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)
