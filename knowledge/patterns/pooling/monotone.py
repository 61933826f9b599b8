"""Moves what keeps the order of numbers from before a max pooling to after it.

The largest of f(x) is f of the largest x where f never falls, so relu before a pooling may as well
be done on the result, of which there is less, and there it fuses. NaN stays NaN either way.
"""

from typing import Any

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, argument, operator, producer, read_once, replace

_ALWAYS = (
    "relu", "relu_", "relu6", "sigmoid", "tanh", "exp", "softplus", "hardsigmoid", "selu",
    "log_sigmoid",
)  # fmt: skip


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")


def never_falls(node: Node) -> bool:
    """Whether a call is a pointwise function of its first argument that never falls."""
    name = operator(node)
    numbers = node.args[1:]
    if node.kwargs or any(isinstance(value, Ref | list) for value in numbers):
        return False
    if name in _ALWAYS:
        return not numbers
    if name in ("mul", "div"):
        return len(numbers) == 1 and _positive(numbers[0])
    if name in ("add", "sub"):
        return len(numbers) == 1 and _finite(numbers[0])
    if name in ("hardtanh", "clamp"):
        low, high = argument(node, 1, "min"), argument(node, 2, "max")
        return None in (low, high) or low <= high
    if name in ("clamp_min", "clamp_max"):
        return len(numbers) == 1
    if name == "leaky_relu":
        return _positive(argument(node, 1, "slope", 0.01))
    return name == "elu" and all(_positive(value) for value in numbers)


def delayed(graph: OpGraph, pool: Node) -> tuple[OpGraph, str] | None:
    """The graph with the call before a max pooling done after it, and the pooling's new name."""
    before = producer(graph, pool.args[0])
    if before is None or not before.args or not isinstance(pool.args[0], Ref):
        return None
    source = before.args[0]
    if not isinstance(source, Ref) or pool.kwargs or not never_falls(before):
        return None
    spec = graph.spec_of(source)
    if not read_once(graph, pool.args[0]) or spec.dtype != before.spec.dtype:
        return None
    w = Writer(graph)
    pooled = w.call(pool.target, (source, *pool.args[1:]), pool.spec.shape, pool.spec.dtype)
    after = w.call(before.target, (pooled, *before.args[1:]), pool.spec.shape, pool.spec.dtype)
    return replace(graph, w, pool.name, {Ref(ref=pool.name): after}), pooled.ref
