"""Writes the spread of a whole large tensor, and logsumexp of it, as sums that threads share."""

from collections.abc import Callable
from math import prod
from typing import Any

from knowledge.loops.operators import External, operator_of
from knowledge.loops.reductions import LONGEST_ALONE, reduced_dims
from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec
from knowledge.patterns.algebra.edit import Writer, operator, replace
from knowledge.patterns.convolution.fixed_norms import with_calls_apart
from knowledge.program import Program

CALLS = ("var", "std", "logsumexp")
FLOATS = ("float32", "float64")


def with_spreads_apart(program: Program, make: Callable[[Program], Program]) -> Program:
    """What `make` makes of a program whose spreads of one long row are written out as sums."""
    names = [node.name for node in program.library_calls if _is_long(program.graph, node)]
    return with_calls_apart(program, names, _written_out, make, alone=True)


def _arguments(graph: OpGraph, node: Node) -> dict[str, Any]:
    return operator_of(node).bind(node, lambda ref: External(ref, graph.spec_of(ref)))


def _is_long(graph: OpGraph, node: Node) -> bool:
    """Whether a call sweeps one long row more than once."""
    if operator(node) not in CALLS or not isinstance(node.result, TensorSpec):
        return False
    spec = graph.spec_of(node.refs[0])
    dim = _arguments(graph, node)["dim"]
    dims = reduced_dims(len(spec.shape), None if isinstance(dim, bool) else dim)
    elements = prod(spec.shape)
    whole = prod(spec.shape[one] for one in dims) == elements
    return whole and elements > LONGEST_ALONE and spec.dtype in FLOATS


def _written_out(graph: OpGraph, node: Node) -> tuple[OpGraph, Ref]:
    """The graph with one of them as sums over everything, and its result there."""
    w = Writer(graph)
    result = (_log_sum if operator(node) == "logsumexp" else _spread)(w, node)
    if node.spec.shape:
        shape = node.spec.shape
        result = w.call("aten.view.default", (result, list(shape)), shape, node.spec.dtype)
    return replace(graph, w, node.name, {Ref(ref=node.name): result}), result


def _spread(w: Writer, node: Node) -> Ref:
    """The mean, then the mean of what is centred, squared: as many sweeps as on one thread."""
    x, given = node.refs[0], _arguments(w.graph, node)
    spec = w.graph.spec_of(x)
    correction = given["correction"]
    if correction is None:
        unbiased = given["dim"] if isinstance(given["dim"], bool) else given["unbiased"]
        correction = 0 if unbiased is False else 1
    mean = w.call("aten.mean.default", (x,), (), spec.dtype)
    centred = w.call("aten.sub.Tensor", (x, mean), spec.shape, spec.dtype)
    squares = w.call("aten.mul.Tensor", (centred, centred), spec.shape, spec.dtype)
    total = w.call("aten.sum.default", (squares,), (), spec.dtype)
    # The tensor may have another size when the kernel runs.
    ones = w.call("aten.ones_like.default", (x,), spec.shape, spec.dtype)
    count = w.call("aten.sum.default", (ones,), (), spec.dtype)
    if correction:
        count = w.call("aten.sub.Tensor", (count, float(correction)), (), spec.dtype)
    result = w.call("aten.div.Tensor", (total, count), (), spec.dtype)
    if operator(node) == "std":
        result = w.call("aten.sqrt.default", (result,), (), spec.dtype)
    return result


def _log_sum(w: Writer, node: Node) -> Ref:
    """As torch does it: an infinite maximum is not taken off."""
    x = node.refs[0]
    spec = w.graph.spec_of(x)
    top = w.call("aten.amax.default", (x, list(range(len(spec.shape)))), (), spec.dtype)
    size = w.call("aten.abs.default", (top,), (), spec.dtype)
    endless = w.call("aten.eq.Scalar", (size, float("inf")), (), "bool")
    top = w.call("aten.masked_fill.Scalar", (top, endless, 0.0), (), spec.dtype)
    below = w.call("aten.sub.Tensor", (x, top), spec.shape, spec.dtype)
    powers = w.call("aten.exp.default", (below,), spec.shape, spec.dtype)
    total = w.call("aten.sum.default", (powers,), (), spec.dtype)
    total = w.call("aten.log.default", (total,), (), spec.dtype)
    return w.call("aten.add.Tensor", (total, top), (), spec.dtype)
