"""Changing an op graph: new nodes in place of old ones, what nothing reads left out; all pure."""

from collections.abc import Iterable, Mapping
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
        self.nodes: list[Node] = []

    def call(
        self, target: str, args: tuple[Argument, ...], shape: Iterable[int], dtype: str
    ) -> Ref:
        """A call that makes one tensor."""
        stem = target.split(".")[1].strip("_")
        taken = self.graph.by_name.keys() | {node.name for node in self.nodes}
        number = 0
        while (name := f"{stem}_alg{number}") in taken:
            number += 1
        self.nodes.append(
            Node(name=name, kind="call", target=target, args=args, result=dense(shape, dtype))
        )
        return Ref(ref=name)

    def permuted(self, ref: Ref, order: list[int]) -> Ref:
        """A view with its dimensions in another order; the value itself if it is the same one."""
        if order == sorted(order):
            return ref
        spec = self.spec(ref)
        shape, strides = ([given[dim] for dim in order] for given in (spec.shape, spec.strides))
        made = self.call("aten.permute.default", (ref, [*order]), shape, spec.dtype)
        viewed = TensorSpec(shape=tuple(shape), dtype=spec.dtype, strides=tuple(strides))
        self.nodes[-1] = self.nodes[-1].model_copy(update={"result": viewed})
        return made

    def spec(self, ref: Ref) -> TensorSpec:
        """The tensor behind a reference to the graph or to a new call."""
        for node in self.nodes:
            if node.name == ref.ref:
                return node.spec
        return self.graph.spec_of(ref)


def replace(graph: OpGraph, writer: Writer, place: str, changed: Mapping[Ref, Ref]) -> OpGraph:
    """The graph with the writer's calls put before node `place`, and every reference changed.

    What nothing reads after that is left out.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name == place:
            nodes += writer.nodes
        nodes.append(_redirected(node, changed))
    mutations = {
        path: _text(changed.get(_ref(text), _ref(text))) for path, text in graph.mutations.items()
    }
    outputs = tuple(changed.get(ref, ref) for ref in graph.outputs)
    return without_dead(_rebuilt(graph, tuple(nodes), outputs, mutations))


def _rebuilt(
    graph: OpGraph, nodes: tuple[Node, ...], outputs: tuple[Ref, ...], mutations: dict[str, str]
) -> OpGraph:
    """A new graph; a copy of the old one would bring its cached look-ups along."""
    return OpGraph(
        nodes=nodes, outputs=outputs, returns=graph.returns, mutations=mutations,
        training=graph.training,
    )  # fmt: skip


def _redirected(node: Node, changed: Mapping[Ref, Ref]) -> Node:
    if not any(ref in changed for ref in node.refs):
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
