"""Attention's scores, brought into the one form that attention's kernel has.

That is a product, scaled by a number, with as few masks as may be; each rewrite is for what becomes
weights.
"""

from dataclasses import dataclass
from math import prod

from knowledge.loops.shapes import broadcast
from knowledge.opgraph import Argument, Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, operator, producer, read_once, replace
from knowledge.patterns.algebra.rewrites import FLOATS, OVERFLOWING, Rewritten, Unfit
from knowledge.patterns.algebra.terms import same_dtype

_PRODUCTS = ("matmul", "bmm", "einsum")
_SOFTMAX = ("softmax", "_softmax")
_IDLE = ("clone", "contiguous", "alias", "detach", "dropout")
_STEPS = ("mul", "div", "add", "masked_fill", "where")


def becomes_weights(graph: OpGraph, node: Node) -> bool:
    """Whether a value, scaled and masked, goes through a softmax into a product, nowhere else."""
    while read_once(graph, Ref(ref=node.name)):
        node = graph.users[node.name][0]
        if operator(node) in _SOFTMAX:
            return node.args[1] in (-1, len(node.spec.shape) - 1) and _weighs(graph, node)
        if operator(node) not in _STEPS:
            return False
    return False


def _weighs(graph: OpGraph, softmax: Node) -> bool:
    node = softmax
    while read_once(graph, Ref(ref=node.name)):
        node = graph.users[node.name][0]
        if operator(node) not in _IDLE:
            return operator(node) in _PRODUCTS
    return False


def _is_weights(graph: OpGraph, ref: Ref) -> bool:
    """Whether a value is a softmax over its last dimension, which nothing else reads."""
    node = producer(graph, ref)
    while node is not None and read_once(graph, Ref(ref=node.name)):
        if operator(node) in _SOFTMAX:
            return node.args[1] in (-1, len(node.spec.shape) - 1)
        node = producer(graph, node.args[0]) if operator(node) in _IDLE else None
    return False


@dataclass(frozen=True)
class _Sides:
    """A product of two tensors whose dimensions are letters: the left one has the rows."""

    left: tuple[Ref, str]
    right: tuple[Ref, str]
    result: str

    def turned(self) -> "_Sides":
        """The same product with its factors the other way round."""
        return _Sides(self.right, self.left, self.result)


def einsum_of_attention(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """An einsum that makes scores, or weighs values: the product of the operands, permuted."""
    sides = _sides(node)
    if sides is None:
        return None
    scores = becomes_weights(graph, node)
    if not scores and not any(_is_weights(graph, one[0]) for one in (sides.left, sides.right)):
        return None
    # What has the rows comes first: queries before keys, weights before values.
    turns = sides.result[-2:-1] in sides.right[1] if scores else _is_weights(graph, sides.right[0])
    sides = sides.turned() if turns else sides
    ordered = sides.result if scores else sides.left[1]
    groups = _groups(sides, ordered)
    sizes = _sizes(graph, sides)
    if groups is None or sizes is None or not same_dtype(graph, *node.refs, Ref(ref=node.name)):
        return Unfit("the equation is no product of two matrices for each head")
    batch, row, column, depth = groups
    (a, left), (b, right) = sides.left, sides.right
    made = batch + row + column
    if (sides.result != made) if scores else (left != batch + row + depth):
        return Unfit("queries and keys are not the last two dimensions of the scores")
    w = Writer(graph)
    a = w.permuted(a, [left.index(letter) for letter in batch + row + depth])
    b = w.permuted(b, [right.index(letter) for letter in batch + depth + column])
    shape = [sizes[letter] for letter in made]
    product = w.call("aten.matmul.default", (a, b), shape, node.spec.dtype)
    result = w.permuted(product, [made.index(letter) for letter in sides.result])
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, "an einsum of attention is a product of permuted tensors")


def _sides(node: Node) -> _Sides | None:
    """The two operands of an einsum with their letters, each of which is there once."""
    if operator(node) != "einsum" or not isinstance(node.args[1], list):
        return None
    terms, arrow, result = str(node.args[0]).replace(" ", "").partition("->")
    letters, refs = terms.split(","), [one for one in node.args[1] if isinstance(one, Ref)]
    if not arrow or "." in terms or len(letters) != 2 or len(refs) != 2:
        return None
    if any(len(set(term)) != len(term) for term in (*letters, result)):
        return None
    return _Sides((refs[0], letters[0]), (refs[1], letters[1]), result)


def _groups(sides: _Sides, ordered: str) -> tuple[str, str, str, str] | None:
    """The letters of batch, row, column and depth, if there is one of each but the first."""
    left, right, result = sides.left[1], sides.right[1], sides.result
    batch = "".join(c for c in ordered if c in left and c in right and c in result)
    row = "".join(c for c in result if c not in right)
    column = "".join(c for c in result if c not in left)
    depth = "".join(c for c in left if c in right and c not in result)
    single = len(row) == len(column) == len(depth) == 1 <= len(batch) <= 2
    whole = len(left) == len(right) == len(result) == len(batch) + 2
    return (batch, row, column, depth) if single and whole else None


def _sizes(graph: OpGraph, sides: _Sides) -> dict[str, int] | None:
    """The size of each letter; None where an operand is broadcast."""
    found: dict[str, int] = {}
    for ref, letters in (sides.left, sides.right):
        for letter, size in zip(letters, graph.spec_of(ref).shape, strict=True):
            if found.setdefault(letter, size) != size:
                return None
    return found


def two_fills(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """Scores filled with a number where one mask says so, and where another does: either mask."""
    inner = producer(graph, node.args[0] if node.args else None)
    if operator(node) != "masked_fill" or operator(inner) != "masked_fill" or inner is None:
        return None
    if not becomes_weights(graph, inner):
        return None
    (source, first, number), (_, second, other) = inner.args, node.args
    assert isinstance(first, Ref)
    assert isinstance(second, Ref)
    if number != other:
        return Unfit("the two masks fill in different numbers")
    w = Writer(graph)
    shape = broadcast([graph.spec_of(first).shape, graph.spec_of(second).shape])
    mask = w.call("aten.bitwise_or.Tensor", (first, second), shape, "bool")
    args: tuple[Argument, ...] = (source, mask, number)
    result = w.call(node.target, args, node.spec.shape, node.spec.dtype)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, "two masks that fill scores are one")


def two_masks(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """(x + m) + n = x + (m + n), where x are scores and both masks are smaller."""
    outer = _added(graph, node)
    inner = _added(graph, producer(graph, outer[0])) if outer else None
    if outer is None or inner is None or not becomes_weights(graph, graph.by_name[outer[0].ref]):
        return None
    (_, second), (source, first) = outer, inner
    if not same_dtype(graph, source, first, second, Ref(ref=node.name)):
        return Unfit("the masks are of other types than the scores")
    w = Writer(graph)
    dtype = node.spec.dtype
    shape = broadcast([graph.spec_of(first).shape, graph.spec_of(second).shape])
    if prod(shape) > max(graph.spec_of(one).numel for one in (first, second)):
        return Unfit("the sum of both masks is larger than either, and attention takes two")
    mask = w.call("aten.add.Tensor", (first, second), shape, dtype)
    result = w.call("aten.add.Tensor", (source, mask), node.spec.shape, dtype)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, "two masks that are added to scores are one")


def _added(graph: OpGraph, node: Node | None) -> tuple[Ref, Ref] | None:
    """The scores and the mask of a plain sum: the mask has fewer elements."""
    if operator(node) != "add" or node is None or node.kwargs:
        return None
    sides = [one for one in node.args if isinstance(one, Ref)]
    sides.sort(key=lambda ref: graph.spec_of(ref).numel)
    if len(sides) != 2 or graph.spec_of(sides[0]).numel == graph.spec_of(sides[1]).numel:
        return None
    return (sides[1], sides[0]) if graph.spec_of(sides[1]).shape == node.spec.shape else None


def learned_temperature(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """(Q K) s = (Q s) K for scores, where s is one number a head."""
    if operator(node) not in ("mul", "div") or node.kwargs or len(node.args) != 2:
        return None
    sides = [one for one in node.args if isinstance(one, Ref)]
    if operator(node) == "mul" and len(sides) == 2 and operator(producer(graph, sides[1])) in _MM:
        sides.reverse()
    product = producer(graph, sides[0]) if len(sides) == 2 else None
    if product is None or operator(product) not in _MM or not becomes_weights(graph, product):
        return None
    queries, keys = product.args
    factor = sides[1]
    assert isinstance(queries, Ref)
    if _is_number(graph, factor):
        return None
    shape = graph.spec_of(queries).shape
    whole = (*shape[:-2], 1, 1)
    if broadcast([graph.spec_of(factor).shape, whole]) != whole:
        return Unfit("what scales the scores differs within a head")
    if node.spec.dtype not in FLOATS or not same_dtype(graph, queries, factor, sides[0]):
        return Unfit("the scores are scaled in another type")
    if node.spec.dtype == "float16":
        return OVERFLOWING
    w = Writer(graph)
    scaled = w.call(node.target, (queries, factor), shape, node.spec.dtype)
    result = w.call(product.target, (scaled, keys), node.spec.shape, node.spec.dtype)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, "a temperature scales the queries in place of the scores")


_MM = ("matmul", "bmm")


def _is_number(graph: OpGraph, ref: Ref) -> bool:
    """Whether a factor is known, so that it is compiled into attention's kernel."""
    node = graph.by_name[ref.ref]
    return node.kind == "constant" and node.spec.numel == 1
