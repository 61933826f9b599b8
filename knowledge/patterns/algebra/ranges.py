"""Bounds on the values of a graph, and the clamps that they make superfluous."""

from dataclasses import dataclass
from math import inf
from typing import Any

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, argument, operator, producer, replace
from knowledge.patterns.algebra.rewrites import Rewritten, Unfit


@dataclass(frozen=True)
class Range:
    """All values but NaN lie in [low, high]."""

    low: float = -inf
    high: float = inf

    def clamped(self, low: float, high: float) -> "Range":
        """The range after a clamp, which takes the upper bound last."""
        return Range(min(max(self.low, low), high), min(max(self.high, low), high))

    def within(self, low: float, high: float) -> bool:
        """Whether a clamp to [low, high] leaves every value alone."""
        return low <= self.low and self.high <= high


_UNIT, _SIGNED, _POSITIVE = Range(0.0, 1.0), Range(-1.0, 1.0), Range(0.0)
_KNOWN = {
    "sigmoid": _UNIT, "hardsigmoid": _UNIT, "softmax": _UNIT, "tanh": _SIGNED, "sin": _SIGNED,
    "cos": _SIGNED, "erf": _SIGNED, "exp": _POSITIVE, "abs": _POSITIVE, "square": _POSITIVE,
    "sqrt": _POSITIVE, "softplus": _POSITIVE, "log_softmax": Range(-inf, 0.0),
    "log_sigmoid": Range(-inf, 0.0),
}  # fmt: skip
_PASSING = {
    "clone", "view", "reshape", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze",
    "amax", "amin", "contiguous", "mean", "flatten", "_unsafe_view",
}  # fmt: skip


def bounds(node: Node) -> tuple[float, float] | None:
    """What a call clamps to; None for other calls, or where a bound is a tensor."""
    name = operator(node)
    if name == "relu":
        return 0.0, inf
    if name == "relu6":
        return 0.0, 6.0
    low: Any = -inf
    high: Any = inf
    if name in ("clamp", "clip"):
        low, high = argument(node, 1, "min"), argument(node, 2, "max")
        low, high = -inf if low is None else low, inf if high is None else high
    elif name == "hardtanh":
        low, high = argument(node, 1, "min_val", -1.0), argument(node, 2, "max_val", 1.0)
    elif name == "clamp_min":
        low = argument(node, 1, "min")
    elif name == "clamp_max":
        high = argument(node, 1, "max")
    else:
        return None
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return None
    return float(low), float(high)


def range_of(graph: OpGraph, ref: Any, depth: int = 16) -> Range:
    """What is known of a value's range."""
    node = producer(graph, ref)
    if node is None or depth == 0 or not node.args:
        return Range()
    limits = bounds(node)
    before = range_of(graph, node.args[0], depth - 1) if isinstance(node.args[0], Ref) else Range()
    if limits is not None:
        return before.clamped(*limits)
    if operator(node) in _PASSING and not node.target.endswith(".dtype"):
        return before
    return _KNOWN.get(operator(node), Range())


def needless_clamp(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """A clamp to bounds that its argument keeps anyway; or two clamps that are one."""
    limits = bounds(node)
    if limits is None or not isinstance(node.args[0], Ref):
        return None
    source = node.args[0]
    if graph.spec_of(source).dtype != node.spec.dtype:
        return Unfit("the clamp changes the type")
    if range_of(graph, source).within(*limits):
        changed = replace(graph, Writer(graph), node.name, {Ref(ref=node.name): source})
        return Rewritten(
            changed, f"{operator(node)} changes nothing: its argument is within bounds"
        )
    inner = producer(graph, source)
    inside = bounds(inner) if inner is not None else None
    if inner is None or inside is None or not isinstance(inner.args[0], Ref):
        return None
    joined = Range(*inside).clamped(*limits)
    if joined.low >= joined.high:
        return Unfit("two clamps leave a single value, whatever the input is")
    w = Writer(graph)
    given = [_bound(bound, node.spec.dtype) for bound in (joined.low, joined.high)]
    result = w.call("aten.clamp.default", (inner.args[0], *given), node.spec.shape, node.spec.dtype)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, f"{operator(inner)} and {operator(node)} are one clamp")


def _bound(bound: float, dtype: str) -> float | int | None:
    """A bound as the call takes it; a float among whole numbers would make floats of them."""
    if abs(bound) == inf:
        return None
    return int(bound) if "int" in dtype and bound.is_integer() else bound


def is_constant_output(graph: OpGraph) -> bool:
    """Whether every returned value can take a single value only, whatever the inputs are."""
    ranges = [range_of(graph, ref) for ref in graph.outputs]
    single = [found.low == found.high for found in ranges]
    softmax = [_is_lonely_softmax(graph, ref) for ref in graph.outputs]
    return bool(single) and all(a or b for a, b in zip(single, softmax, strict=True))


def _is_lonely_softmax(graph: OpGraph, ref: Ref) -> bool:
    node = producer(graph, ref)
    if operator(node) not in ("softmax", "log_softmax") or node is None:
        return False
    dim, shape = node.args[1], node.spec.shape
    return isinstance(dim, int) and bool(shape) and shape[dim] == 1
