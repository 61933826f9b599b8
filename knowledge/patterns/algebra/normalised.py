"""Means over what was normalised: constant but for NaN, whatever the input is."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import (
    Writer,
    argument,
    is_random,
    operator,
    producer,
    read_once,
    replace,
)
from knowledge.patterns.algebra.rewrites import FLOATS, Rewritten, Unfit
from knowledge.patterns.algebra.terms import plus, reduction_of, scaled, shaped, sum_over


@dataclass(frozen=True)
class Constant:
    """The mean of a normalised value over `dims`: `bias`, one for each channel, or 0."""

    source: Ref
    dims: tuple[int, ...]
    bias: Ref | None


def mean_of_normalised(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """The mean over exactly what was normalised is the bias; the sum, as often as it is added."""
    found = _constant_mean(graph, node)
    if not isinstance(found, Constant):
        return found
    w = Writer(graph)
    # Zero, but NaN where anything normalised is not finite.
    spec = graph.spec_of(found.source)
    nothing = w.call("aten.sub.Tensor", (found.source, found.source), spec.shape, spec.dtype)
    result = sum_over(w, nothing, [*found.dims], keep=True)
    spec = w.spec(result)
    if found.bias is not None:
        shape = (-1, *[1] * (len(spec.shape) - 2))
        channels = w.spec(found.bias).shape[0]
        bias = w.call(
            "aten.view.default", (found.bias, [*shape]), (channels, *shape[1:]), spec.dtype
        )
        if operator(node) == "sum":
            shape_x = graph.spec_of(found.source).shape
            bias = scaled(w, bias, float(prod(shape_x[dim] for dim in found.dims)))
        result = plus(w, result, bias)
    result = shaped(w, result, node.spec.shape)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, f"the {operator(node)} of what was normalised is its bias")


def _constant_mean(graph: OpGraph, node: Node) -> Constant | Unfit | None:
    found = reduction_of(graph, node)
    inner = producer(graph, found[0]) if found else None
    reader = _NORMS.get(operator(inner))
    if found is None or inner is None or reader is None or not isinstance(inner.args[0], Ref):
        return None
    constant = reader(graph, inner)
    if constant is None:
        return Unfit("a weight or running statistics stand between the normalisation and its mean")
    if constant.dims != found[1]:
        return Unfit("the mean is not over exactly what was normalised")
    if not read_once(graph, found[0]):
        return Unfit("the normalised values are needed for something else too")
    if node.spec.dtype not in FLOATS or graph.spec_of(constant.source).dtype != node.spec.dtype:
        return Unfit("the mean changes the type")
    return constant


def _bias(node: Node, position: int) -> Ref | None:
    bias = argument(node, position, "bias")
    return bias if isinstance(bias, Ref) else None


def _instance(graph: OpGraph, node: Node) -> Constant | None:
    source = node.args[0]
    assert isinstance(source, Ref)
    tracked = argument(node, 3, "running_mean") is not None
    if tracked or argument(node, 5, "use_input_stats", True) is not True:
        return None
    rank = len(graph.spec_of(source).shape)
    return Constant(source, tuple(range(2, rank)), _bias(node, 2))


def _group(graph: OpGraph, node: Node) -> Constant | None:
    source = node.args[0]
    assert isinstance(source, Ref)
    shape, groups = graph.spec_of(source).shape, node.args[1]
    if groups == shape[1]:
        return Constant(source, tuple(range(2, len(shape))), _bias(node, 3))
    if argument(node, 2, "weight") is not None or _bias(node, 3) is not None:
        return None
    return Constant(source, tuple(range(1, len(shape))), None)


def _layer(graph: OpGraph, node: Node) -> Constant | None:
    source, normalised = node.args[0], node.args[1]
    assert isinstance(source, Ref)
    affine = argument(node, 2, "weight") is not None or _bias(node, 3) is not None
    if affine or not isinstance(normalised, list):
        return None
    rank = len(graph.spec_of(source).shape)
    return Constant(source, tuple(range(rank - len(normalised), rank)), None)


_NORMS: dict[str, Callable[[OpGraph, Node], Constant | None]] = {
    "instance_norm": _instance,
    "group_norm": _group,
    "layer_norm": _layer,
}


def sum_of_softmax(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """A softmax summed over its own dimension is 1; NaN where its largest element is not finite."""
    found = reduction_of(graph, node)
    inner = producer(graph, found[0]) if found else None
    if found is None or operator(inner) != "softmax" or inner is None:
        return None
    source, dim = inner.args[0], inner.args[1]
    assert isinstance(source, Ref)
    spec = graph.spec_of(source)
    if not isinstance(dim, int) or found[1] != (dim % max(len(spec.shape), 1),):
        return Unfit("the sum is not over the softmax's dimension")
    if not read_once(graph, found[0]):
        return Unfit("the softmax is needed for something else too")
    if not spec.dtype == inner.spec.dtype == node.spec.dtype:
        return Unfit("the softmax or its sum changes the type")
    w = Writer(graph)
    size = spec.shape[dim]
    shape = [1 if at == found[1][0] else n for at, n in enumerate(spec.shape)]
    largest = w.call("aten.amax.default", (source, [dim], True), shape, spec.dtype)
    result = w.call("aten.sub.Tensor", (largest, largest), shape, spec.dtype)
    value = 1.0 if operator(node) == "sum" else 1.0 / size
    result = w.call("aten.add.Tensor", (result, value), shape, spec.dtype)
    result = shaped(w, result, node.spec.shape)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, f"the {operator(node)} of a softmax is a constant")


def is_independent(graph: OpGraph) -> bool:
    """Whether nothing that forward returns depends on its inputs, but for NaN."""
    depends: dict[str, bool] = {}
    for node in graph.nodes:
        inputs = node.kind == "input" or any(depends[ref.ref] for ref in node.refs)
        varies = inputs or (node.kind == "call" and is_random(node))
        depends[node.name] = varies and not _is_constant(graph, node)
    return bool(graph.inputs) and not any(depends[ref.ref] for ref in graph.outputs)


def _is_constant(graph: OpGraph, node: Node) -> bool:
    return isinstance(_constant_mean(graph, node), Constant) or isinstance(
        sum_of_softmax(graph, node), Rewritten
    )
