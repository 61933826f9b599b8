"""What is done to the products of queries and keys before their softmax, and to the weights after.

First a way is found, from the softmax up to a product and down to the next; then it is walked from
the top, with an eye on which dimension is which axis.
"""

import math
from collections.abc import Callable
from typing import Any

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import operator
from knowledge.patterns.attention.axes import (
    Labels,
    Laid,
    Sizes,
    moved,
    moves,
    read_once,
    settled,
)
from knowledge.patterns.attention.code import Form, Mask

SOFTMAX = ("softmax", "_softmax")
PRODUCTS = ("matmul", "bmm", "einsum")
# As nn.MultiheadAttention and ALiBi's first users add their masks.
MASKED_PRODUCT = "baddbmm"
_JOINS = ("cat", "concat", "concatenate")
# Scores come from either argument of these, and from the first of those.
_EITHER = ("add", "mul", "where")
_FIRST = ("div", "sub", "masked_fill", "tanh")


def way_up(graph: OpGraph, ref: Ref) -> list[Node] | None:
    """The calls from a product down to the one that makes `ref`; None if it is no such thing."""
    if ref.index is not None:
        return None
    node = graph.by_name[ref.ref]
    if operator(node) in (*PRODUCTS, MASKED_PRODUCT):
        return [node]
    for source in _sources(graph, node):
        if above := way_up(graph, source):
            return [*above, node]
    return None


def _sources(graph: OpGraph, node: Node) -> list[Ref]:
    """The arguments through which scores may have come."""
    name = operator(node)
    if name in _JOINS and isinstance(node.args[0], list):
        return [ref for ref in node.args[0][:1] if isinstance(ref, Ref)]
    known = name in (*_EITHER, *_FIRST) or moves(node)
    given = node.args if name in _EITHER else node.args[:1] if known else ()
    refs = [ref for ref in given if isinstance(ref, Ref) and ref.index is None]
    specs = [(ref, graph.spec_of(ref)) for ref in refs]
    # A mask may make more of the scores: that is refused with a reason.
    floats = [(ref, spec) for ref, spec in specs if spec.dtype != "bool"]
    whole = [ref for ref, spec in floats if spec.numel == node.spec.numel]
    return whole if name in _EITHER else [ref for ref, _ in floats]


def way_down(graph: OpGraph, softmax: Node) -> list[Node] | None:
    """The calls after a softmax up to the product with the values; None if there is none."""
    node, between = softmax, list[Node]()
    while True:
        users = graph.users[node.name]
        product = next((user for user in users if operator(user) in PRODUCTS), None)
        if product is not None:
            return [*between, product]
        if len(users) != 1 or not moves(users[0]):
            return None
        node = users[0]
        between.append(node)


class Scores:
    """The products on their way to the softmax; every step answers what is against it, or None."""

    def __init__(self, graph: OpGraph, labels: Labels, sizes: Sizes, factor: float) -> None:
        self.graph = graph
        self.labels = labels
        self.sizes = sizes
        self.factor = factor
        self.cap: float | None = None
        self.masks: list[tuple[Laid, Mask]] = []
        self.sink: Laid | None = None
        self.sink_factor = 1.0
        self.beside: list[str] = []

    def form(self) -> Form | str:
        """What is to be compiled in."""
        factors = [self.factor, 1.0 if self.cap is None else self.cap, self.sink_factor]
        if any(not math.isfinite(one) or abs(one) > 1e30 for one in factors):
            return "is scaled by a factor that is not finite"
        if any(math.isnan(mask.fill) for _, mask in self.masks):
            return "scales its mask by zero"
        sink = self.graph.spec_of(self.sink.ref).dtype if self.sink else ""
        return Form(
            factor=self.factor, cap=self.cap, masks=tuple(mask for _, mask in self.masks),
            sink=sink, sink_factor=self.sink_factor,
        )  # fmt: skip

    def start(self, product: Node) -> str | None:
        """What a product that adds a tensor does besides."""
        if operator(product) != MASKED_PRODUCT:
            return None
        alpha, beta = (_number(self.graph, product.kwargs.get(k, 1)) for k in ("alpha", "beta"))
        mask = product.args[0]
        if alpha is None or beta is None or not isinstance(mask, Ref):
            return "is scaled by a tensor"
        self._scale(alpha)
        # Times zero, what is added is not even read.
        return self._add(mask, beta) if beta else None

    def step(self, node: Node, source: Ref) -> str | None:
        """What one call does to the scores in `source`."""
        grows = self.graph.spec_of(source).numel != node.spec.numel
        if grows and operator(node) in _FIRST:
            return "has a mask that makes more scores than there are pairs of queries and keys"
        if (operation := _OPERATIONS.get(operator(node))) is not None:
            why = operation(self, node, source)
        else:
            labels = moved(self.graph, node, self.labels, self.sizes)
            why = None if labels else "are viewed in another shape"
            self.labels = labels or self.labels
        return f"{why} ({node.name})" if why else None

    def _scale(self, factor: float) -> None:
        if self.cap is not None:
            self.cap *= factor
        else:
            self.factor *= factor
        self.sink_factor *= factor if self.sink else 1.0
        self.masks = [(laid, mask.scaled(factor)) for laid, mask in self.masks]

    def _add(self, mask: Ref, factor: float) -> str | None:
        dtype = self.graph.spec_of(mask).dtype
        if dtype not in ("float32", "bfloat16", "float16"):
            return f"has a mask of {dtype}"
        return self._masked(mask, Mask(kind="add", dtype=dtype, factor=factor))

    def _masked(self, mask: Ref, how: Mask) -> str | None:
        if self.sink:
            return "is masked beside its sink"
        shape = self.graph.spec_of(mask).shape
        if len(shape) > len(self.labels):
            return "has a mask that makes more scores than there are pairs of queries and keys"
        self.masks.append((Laid(mask, self.labels[len(self.labels) - len(shape) :]), how))
        return None

    def scaled(self, node: Node, source: Ref) -> str | None:
        """A product with a number, or a quotient by one."""
        left, right = node.args[0], node.args[1]
        factor = _number(self.graph, left if right == source else right)
        if factor is None:
            return "is scaled by a tensor"
        if operator(node) == "div":
            if factor == 0 or node.kwargs.get("rounding_mode"):
                return "is divided by zero or rounded"
            factor = 1.0 / factor
        self._scale(factor)
        return None

    def added(self, node: Node, source: Ref) -> str | None:
        """A sum with a mask, or a difference; the scores' own maximum taken off changes nothing."""
        left, right = node.args[0], node.args[1]
        other = left if right == source and left != source else right
        alpha = _number(self.graph, node.kwargs.get("alpha", 1))
        if not isinstance(other, Ref) or alpha is None:
            return "has a number added"
        if operator(node) == "add":
            # Of two sides of one size, the scores may be either.
            fits = self.graph.spec_of(other).numel <= node.spec.numel
            reversed_scale = other == left and alpha != 1.0
            return self._add(other, alpha) if fits and not reversed_scale else "has a mask scaled"
        if self._is_own_maximum(other, source):
            self.beside.append(other.ref)
            return None
        return self._add(other, -alpha)

    def _is_own_maximum(self, other: Ref, source: Ref) -> bool:
        node, rank = self.graph.by_name[other.ref], len(self.labels)
        if operator(node) not in ("amax", "max") or len(node.args) != 3 or node.args[0] != source:
            return False
        return node.args[1] in (-1, rank - 1, [-1], [rank - 1]) and node.args[2] is True

    def filled(self, node: Node, source: Ref) -> str | None:
        """A number in the place of some scores."""
        _, mask, value = node.args
        return self._fill(mask, value, True)

    def chosen(self, node: Node, source: Ref) -> str | None:
        """The scores where a mask says so, a number elsewhere, or the other way round."""
        mask, yes, no = node.args
        return self._fill(mask, no if yes == source else yes, yes != source)

    def _fill(self, mask: Any, value: Any, where: bool) -> str | None:
        number = _number(self.graph, value)
        if number is None or math.isnan(number):
            return "is filled from a tensor"
        assert isinstance(mask, Ref)
        if self.graph.spec_of(mask).dtype != "bool":
            return f"has a mask of {self.graph.spec_of(mask).dtype}"
        return self._masked(mask, Mask(kind="fill", fill=number, where=where))

    def capped(self, node: Node, source: Ref) -> str | None:
        """A hyperbolic tangent."""
        if self.cap is not None or self.masks or self.sink:
            return "is capped after it was masked"
        self.cap = 1.0
        return None

    def joined(self, node: Node, source: Ref) -> str | None:
        """One more column, which takes its share of the weights and has no value."""
        parts, dim = node.args[0], node.args[1] if len(node.args) > 1 else 0
        rank = len(self.labels)
        if not isinstance(parts, list) or len(parts) != 2 or dim not in (-1, rank - 1):
            return "is joined with something else than a column"
        sink = parts[1]
        if not isinstance(sink, Ref) or self.graph.spec_of(sink).shape[-1] != 1 or self.sink:
            return "is joined with something else than a column"
        dtype = self.graph.spec_of(sink).dtype
        if dtype not in ("float32", "bfloat16", "float16"):
            return f"has a sink of {dtype}"
        self.sink = Laid(sink, (*self.labels[:-1], ()))
        return None


_Operation = Callable[[Scores, Node, Ref], str | None]
_OPERATIONS: dict[str, _Operation] = {
    "mul": Scores.scaled, "div": Scores.scaled, "add": Scores.added, "sub": Scores.added,
    "masked_fill": Scores.filled, "where": Scores.chosen, "tanh": Scores.capped,
    **dict.fromkeys(_JOINS, Scores.joined),
}  # fmt: skip


def _number(graph: OpGraph, value: Any) -> float | None:
    """A number, or the one element of a constant, or of what is filled with one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    node = graph.by_name[value.ref] if isinstance(value, Ref) else None
    while node is not None and moves(node) and isinstance(node.args[0], Ref):
        node = graph.by_name[node.args[0].ref]
    if node is None or node.result is None or node.spec.numel != 1:
        return None
    if node.kind == "constant" and node.data:
        return float(node.data[0])
    if operator(node) in ("full", "scalar_tensor"):
        return _number(graph, node.args[-1])
    return None


def unscaled(graph: OpGraph, laid: Laid) -> tuple[Laid, float]:
    """Queries or keys before they were scaled by numbers, and by how much they were."""
    factor = 1.0
    while read_once(graph, (laid := settled(graph, laid)).ref):
        node = graph.by_name[laid.ref.ref]
        if operator(node) not in ("mul", "div") or len(node.args) != 2 or node.kwargs:
            break
        source, by = node.args[0], _number(graph, node.args[1])
        if not isinstance(source, Ref) or not by or not math.isfinite(by):
            break
        if graph.spec_of(source).dtype != node.spec.dtype:
            break
        factor *= by if operator(node) == "mul" else 1.0 / by
        laid = Laid(source, laid.labels)
    return laid, factor


def leaves_out_sink(node: Node, keys: int) -> bool:
    """Whether a slice keeps the weights of the keys, and not that of the sink after them."""
    if operator(node) != "slice" or node.kwargs or not 3 <= len(node.args) <= 5:
        return False
    _, dim, start = node.args[:3]
    rank = len(node.spec.shape)
    whole = len(node.args) < 5 or node.args[4] == 1
    return dim in (-1, rank - 1) and start in (0, None) and whole and node.spec.shape[-1] == keys
