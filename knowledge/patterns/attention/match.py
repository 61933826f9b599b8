"""Finds attention in a graph: the library's own call, or the two products with a softmax between.

Every way to write it comes down to one product scaled by a factor, one mask, and the values.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.attention.code import Form
from knowledge.program import Backend, Program
from knowledge.tiles import HALVES

CALL = "aten.scaled_dot_product_attention.default"
# What kernels in each language compute in.
KINDS: dict[Backend, tuple[str, ...]] = {
    "cpp": ("float32", *HALVES), "triton": ("float32", *HALVES), "cuda": (),
}  # fmt: skip
_PRODUCTS = ("aten.matmul.default", "aten.bmm.default")
# As nn.MultiheadAttention adds its mask.
_MASKED_PRODUCT = "aten.baddbmm.default"
_PASSED_ON = ("aten.clone.", "aten.contiguous.", "aten.alias.", "aten.detach.")
_SOFTMAX = ("aten.softmax.int", "aten._softmax.default")


@dataclass(frozen=True)
class Anchor:
    """An attention: its tensors, what is compiled in, and the calls that it stands for.

    `keys_are_columns` says that `k` is read as the second operand of a product, (..., depth, keys).
    `result` is the call whose value is written.
    """

    q: Ref
    k: Ref
    v: Ref
    mask: Ref | None
    form: Form
    keys_are_columns: bool
    nodes: tuple[str, ...]
    result: Node


def find_anchors(program: Program) -> tuple[list[Anchor], list[str]]:
    """The attentions that can be taken, and why others can't, a phrase each."""
    anchors: list[Anchor] = []
    reasons: list[str] = []
    for node in program.graph.calls:
        found: Anchor | str | None
        if node.target == CALL:
            found = _library_call(program, node)
        elif node.target in _SOFTMAX:
            found = _written_out(program, node)
        else:
            continue
        if isinstance(found, Anchor):
            found = _checked(program, found)
        if isinstance(found, str):
            reasons.append(f"{node.name} {found}")
        elif found is not None:
            anchors.append(_with_transposed_result(program, found))
    return anchors, reasons


def _checked(program: Program, anchor: Anchor) -> Anchor | str:
    """The anchor, if types and shapes are such as the kernel takes."""
    graph = program.graph
    if any(name in program.kernel_of for name in anchor.nodes):
        return "is computed by another kernel already"
    specs = [graph.spec_of(ref) for ref in (anchor.q, anchor.k, anchor.v)]
    kinds = KINDS[program.backend]
    if len({spec.dtype for spec in specs}) != 1 or specs[0].dtype not in kinds:
        told = " and ".join(dict.fromkeys(spec.dtype for spec in specs))
        return f"computes in {told}, and the kernel in float32 or one half type alone"
    ranks = {len(spec.shape) for spec in specs}
    if len(ranks) != 1 or not ranks <= {3, 4}:
        return "has operands that are not all of 3 or all of 4 dimensions"
    if any(0 in spec.shape for spec in specs):
        return "reads an empty tensor"
    leading = [spec.shape[:-2] for spec in specs]
    if leading[1] != leading[2] or leading[0][:-1] != leading[1][:-1]:
        return "broadcasts keys or values over the batch"
    if leading[0][-1] % leading[1][-1]:
        return "has a number of heads that is no multiple of its keys' heads"
    q, _, v = specs
    made = anchor.result.spec
    if (made.numel, len(made.shape)) != (q.numel // q.shape[-1] * v.shape[-1], len(q.shape)):
        return "has a mask that makes more scores than there are pairs of queries and keys"
    return anchor


def _library_call(program: Program, node: Node) -> Anchor | str:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if given.get("dropout_p", 0.0) != 0.0:
        return "drops weights at random, which only the library reproduces"
    graph = program.graph
    q, k, v, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
    heads = [graph.spec_of(ref).shape[:-2] for ref in (q, k, v)]
    if len(set(heads)) != 1 and not given.get("enable_gqa", False):
        return "broadcasts keys or values over the heads"
    factor = given.get("scale")
    if factor is not None and not 0 < factor < math.inf:
        return "has a scale that is not positive, by which the library turns hidden keys to NaN"
    form = Form(factor=factor, empty_is_zero=True)
    if given.get("is_causal", False):
        if mask is not None:
            return "has a mask and is causal too, which the library refuses"
        form = replace(form, mask="causal")
    if isinstance(mask, Ref):
        kind = graph.spec_of(mask).dtype
        if kind not in ("bool", graph.spec_of(q).dtype):
            return f"has a mask of {kind}"
        form = replace(form, mask="keep" if kind == "bool" else "add")
    return Anchor(q, k, v, mask, form, False, (node.name,), node)


def _written_out(program: Program, softmax: Node) -> Anchor | str | None:
    """The attention around a softmax; None where it is something else, say a classifier's."""
    graph = program.graph
    rank = len(softmax.spec.shape)
    down = _down(graph, softmax)
    if down is None:
        return None
    second, nodes = down
    scores = _Scores()
    up = _up(graph, softmax, scores)
    if up is None:
        return None
    if isinstance(up, str):
        return up
    if softmax.args[1] not in (-1, rank - 1):
        return "runs over another dimension than the keys"
    if isinstance(form := scores.form(), str):
        return form
    first, above = up
    (q, k), v = first.args[-2:], second.args[1]
    assert isinstance(q, Ref)
    assert isinstance(k, Ref)
    assert isinstance(v, Ref)
    names = {first.name, *above, softmax.name, *nodes, second.name}
    returned = {ref.ref for ref in graph.outputs} & (names - {second.name})
    if returned or not _only_inside(graph, names, second.name):
        return "has scores or weights that are needed for something else too"
    ordered = tuple(node.name for node in graph.calls if node.name in names)
    return Anchor(q, k, v, scores.mask, form, True, ordered, second)


def _only_inside(graph: OpGraph, names: set[str], last: str) -> bool:
    return all(user.name in names for name in names - {last} for user in graph.users[name])


def _down(graph: OpGraph, softmax: Node) -> tuple[Node, list[str]] | None:
    """The product of the weights and the values, and the calls in between that do nothing."""
    node, between = softmax, list[str]()
    while True:
        users = graph.users[node.name]
        product = next((u for u in users if u.target in _PRODUCTS), None)
        if product is not None:
            first = product.args[0]
            return (product, between) if first == Ref(ref=node.name) else None
        idle = [u for u in users if u.target.startswith(_PASSED_ON) or _is_idle_dropout(u)]
        if len(users) != 1 or not idle:
            return None
        node = idle[0]
        between.append(node.name)


def _is_idle_dropout(node: Node) -> bool:
    if node.target != "aten.dropout.default":
        return False
    _, share, training = node.args
    return share == 0.0 or training is False


def _up(graph: OpGraph, softmax: Node, scores: "_Scores") -> tuple[Node, list[str]] | str | None:
    """The product of queries and keys, and the calls in between; `scores` learns what they do."""
    between: list[str] = []
    first = softmax.args[0]
    while isinstance(first, Ref) and first.index is None:
        node = graph.by_name[first.ref]
        if node.target in _PRODUCTS:
            return node, between
        if node.target == _MASKED_PRODUCT and not node.kwargs:
            why = _masked_product(graph, node, scores)
            return f"{why} ({node.name})" if why else (node, between)
        operation = _OPERATIONS.get(".".join(node.target.split(".")[1:]))
        if node.kind != "call" or operation is None:
            return None
        taken = operation(graph, node, scores)
        if isinstance(taken, str):
            return f"{taken} ({node.name})"
        between.append(node.name)
        first = taken
    return None


def _masked_product(graph: OpGraph, node: Node, scores: "_Scores") -> str | None:
    """Take what a product adds to its result for the mask; says why that can't be."""
    mask = node.args[0]
    assert isinstance(mask, Ref)
    if graph.spec_of(mask).dtype != node.spec.dtype:
        return f"has a mask of {graph.spec_of(mask).dtype}"
    return scores.add_mask(mask, Form(mask="add"))


class _Scores:
    """What is done to the products before the softmax, gathered from the last call backwards."""

    def __init__(self) -> None:
        self.factor = 1.0
        self.mask: Ref | None = None
        self._form = Form()

    def scale(self, factor: float) -> None:
        """The scores so far are `factor` times what comes before."""
        self.factor *= factor

    def add_mask(self, mask: Ref, form: Form) -> str | None:
        """A mask comes before what was found so far; says why that can't be."""
        if self.mask is not None:
            return "has two masks"
        self.mask = mask
        scaled = form.fill * self.factor
        self._form = replace(form, mask_factor=form.mask_factor * self.factor, fill=scaled)
        return "scales its mask by zero" if math.isnan(scaled) else None

    def form(self) -> Form | str:
        """What is to be compiled in."""
        if not math.isfinite(self.factor) or abs(self.factor) > 1e30:
            return "is scaled by a factor that is not finite"
        return replace(self._form, factor=self.factor)


def _number(graph: OpGraph, value: Any) -> float | None:
    """A number, or the one element of a constant."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    node = graph.by_name[value.ref] if isinstance(value, Ref) else None
    while node is not None and node.target.startswith(_PASSED_ON) and node.refs:
        node = graph.by_name[node.refs[0].ref]
    if node is not None and node.kind == "constant" and node.data and node.spec.numel == 1:
        return float(node.data[0])
    return None


def _scaled(graph: OpGraph, node: Node, scores: _Scores) -> Ref | str:
    left, right = node.args[0], node.args[1]
    factor, of = _number(graph, right), left
    if factor is None and node.target.startswith("aten.mul"):
        factor, of = _number(graph, left), right
    if factor is None or not isinstance(of, Ref):
        return "is scaled by a tensor"
    if node.target.startswith("aten.div"):
        if factor == 0 or node.kwargs.get("rounding_mode"):
            return "is divided by zero or rounded"
        factor = 1.0 / factor
    scores.scale(factor)
    return of


def _added(graph: OpGraph, node: Node, scores: _Scores) -> Ref | str:
    alpha = _number(graph, node.kwargs.get("alpha", 1))
    sides = [arg for arg in node.args[:2] if isinstance(arg, Ref)]
    if len(sides) != 2 or alpha != 1.0:
        return "has a number added"
    # The scores are the larger of the two; of two alike, those that come from a product.
    sides.sort(key=lambda ref: (graph.spec_of(ref).numel, _from_product(graph, ref)))
    mask, of = sides
    if graph.spec_of(mask).dtype != node.spec.dtype:
        return f"has a mask of {graph.spec_of(mask).dtype}"
    return scores.add_mask(mask, Form(mask="add")) or of


def _from_product(graph: OpGraph, ref: Ref) -> bool:
    node = graph.by_name[ref.ref]
    while node.target.split(".")[1:2] in (["mul"], ["div"]) and node.refs:
        node = graph.by_name[node.refs[0].ref]
    return node.target in _PRODUCTS


def _filled(graph: OpGraph, node: Node, scores: _Scores) -> Ref | str:
    of, mask, value = node.args
    assert isinstance(of, Ref)
    assert isinstance(mask, Ref)
    return _fill(graph, scores, of, mask, value, True)


def _chosen(graph: OpGraph, node: Node, scores: _Scores) -> Ref | str:
    mask, yes, no = node.args
    assert isinstance(mask, Ref)
    if _number(graph, no) is not None and isinstance(yes, Ref):
        return _fill(graph, scores, yes, mask, no, False)
    if isinstance(no, Ref):
        return _fill(graph, scores, no, mask, yes, True)
    return "chooses between two numbers"


def _fill(
    graph: OpGraph, scores: _Scores, of: Ref, mask: Ref, value: Any, where: bool
) -> Ref | str:
    number = _number(graph, value)
    if number is None or math.isnan(number):
        return "is filled from a tensor"
    if graph.spec_of(mask).dtype != "bool":
        return f"has a mask of {graph.spec_of(mask).dtype}"
    return scores.add_mask(mask, Form(mask="fill", fill=number, fill_where=where)) or of


_Operation = Callable[[OpGraph, Node, _Scores], Ref | str]
_OPERATIONS: dict[str, _Operation] = {
    "mul.Tensor": _scaled, "mul.Scalar": _scaled, "div.Tensor": _scaled, "div.Scalar": _scaled,
    "add.Tensor": _added, "masked_fill.Scalar": _filled, "masked_fill.Tensor": _filled,
    "where.self": _chosen, "where.ScalarOther": _chosen, "where.ScalarSelf": _chosen,
}  # fmt: skip


def _with_transposed_result(program: Program, anchor: Anchor) -> Anchor:
    """The anchor with a transposition of heads and rows after it, if a dense copy follows that."""
    graph, result = program.graph, anchor.result
    returned = {ref.ref for ref in graph.outputs}
    chain = [result]
    for is_next in (_is_head_transpose, _is_dense_copy):
        users = graph.users[chain[-1].name]
        if len(users) != 1 or not is_next(users[0]) or chain[-1].name in returned:
            return anchor
        if users[0].name in program.kernel_of:
            return anchor
        chain.append(users[0])
    nodes = (*anchor.nodes, *(node.name for node in chain[1:]))
    return replace(
        anchor, form=replace(anchor.form, rows_first=True), nodes=nodes, result=chain[-1]
    )


def _is_head_transpose(node: Node) -> bool:
    if node.target == "aten.transpose.int" and len(node.spec.shape) == 4:
        return {int(dim) % 4 for dim in node.args[1:3]} == {1, 2}  # type: ignore[arg-type]
    return node.target == "aten.permute.default" and node.args[1] == [0, 2, 1, 3]


def _is_dense_copy(node: Node) -> bool:
    if node.target == "aten.clone.default":
        return node.kwargs.get("memory_format") == "torch.contiguous_format"
    return node.target == "aten.contiguous.default" and not node.kwargs
