"""Euclidean distances as the library computes them, call by call, so that they can be fused."""

from typing import Any

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, argument, operator, replace
from knowledge.patterns.algebra.rewrites import FLOATS, Rewritten, Unfit
from knowledge.patterns.algebra.terms import same_dtype

# ATen/native/Distance.cpp: with more points than these on either side, torch.cdist multiplies.
_FEW = 25


def distances_by_product(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """|x - y| = sqrt(max(0, [-2 x, |x|^2, 1] [y, 1, |y|^2]')), the library's own arithmetic."""
    if operator(node) != "cdist":
        return None
    x, y = node.args[0], node.args[1]
    power: Any = argument(node, 2, "p", 2.0)
    mode: Any = argument(node, 3, "compute_mode")
    assert isinstance(x, Ref)
    assert isinstance(y, Ref)
    many = max(graph.spec_of(ref).shape[-2] for ref in (x, y)) > _FEW
    if power != 2 or not (mode == 1 or (mode in (None, 0) and many)):
        return Unfit("the distances are sums of differences")
    if node.spec.dtype not in FLOATS or not same_dtype(graph, x, y, Ref(ref=node.name)):
        return Unfit("the distances are of another type than the points")
    if any(graph.spec_of(ref).numel == 0 for ref in (x, y)):
        return Unfit("there are no points")
    w = Writer(graph)
    spec, dtype = graph.spec_of(x), node.spec.dtype
    doubled = w.call("aten.mul.Tensor", (x, -2), spec.shape, dtype)
    norms = [_norm(w, points) for points in (x, y)]
    ones = [w.call("aten.ones_like.default", (norm,), w.spec(norm).shape, dtype) for norm in norms]
    a = _side_by_side(w, [doubled, norms[0], ones[0]])
    b = _side_by_side(w, [y, ones[1], norms[1]])
    rank = len(w.spec(b).shape)
    turned = w.permuted(b, [*range(rank - 2), rank - 1, rank - 2])
    squares = w.call("aten.matmul.default", (a, turned), node.spec.shape, dtype)
    above = w.call("aten.clamp_min.default", (squares, 0), node.spec.shape, dtype)
    result = w.call("aten.sqrt.default", (above,), node.spec.shape, dtype)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, "distances are roots of a product")


def _norm(w: Writer, points: Ref) -> Ref:
    """The square of each point's distance from zero."""
    spec = w.spec(points)
    squares = w.call("aten.pow.Tensor_Scalar", (points, 2), spec.shape, spec.dtype)
    shape = (*spec.shape[:-1], 1)
    return w.call("aten.sum.dim_IntList", (squares, [-1], True), shape, spec.dtype)


def _side_by_side(w: Writer, parts: list[Ref]) -> Ref:
    specs = [w.spec(part) for part in parts]
    shape = (*specs[0].shape[:-1], sum(spec.shape[-1] for spec in specs))
    return w.call("aten.cat.default", ([*parts], -1), shape, specs[0].dtype)
