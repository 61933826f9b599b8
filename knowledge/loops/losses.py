"""Losses as fused-loop values: by element or by row, then reduced to one number if asked for."""

import math
from collections.abc import Callable
from typing import Any

from knowledge.loops.expression import Expression
from knowledge.loops.form import Extent, Refused, value_type
from knowledge.loops.lower import Lowering
from knowledge.loops.operators import Arguments, External, Given, Tensor, Work, operator, shape_of
from knowledge.loops.places import Index
from knowledge.loops.reductions import Rows, log_softmax, norm, row_work
from knowledge.loops.shapes import Layout, broadcast, spanned
from knowledge.opgraph import Node

NONE, MEAN, SUM = 0, 1, 2


def _broadcast_work(node: Node, arguments: Arguments) -> Work:
    tensors = [given for given in arguments.values() if isinstance(given, External)]
    return Work(broadcast([shape_of(given) for given in tensors]))


def reduced(k: Lowering, node: Node, value: Expression, layout: Layout, how: int) -> Tensor:
    """A loss per position of `layout`, reduced the way the call asks for."""
    dtype = node.spec.dtype
    if how == NONE:
        return Tensor(value.to(value_type(dtype)).value, layout, dtype)
    atoms = spanned(layout)
    total = Expression(k.build, k.reduce("sum", value.value, atoms, layout))
    if how == MEAN:
        total = total / Expression(k.build, k.build.count(tuple(sorted(atoms)), value.type))
    return Tensor(total.to(value_type(dtype)).value, (), dtype)


def _elementwise(names: str, parameters: str, formula: Callable[..., Expression]) -> None:
    """Losses that are a formula of input and target; further parameters are given to it by name."""

    @operator(names, f"x, y, {parameters}", _broadcast_work)
    def lower(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
        given = dict(arguments)
        x, y, how = given.pop("x"), given.pop("y"), given.pop("reduction")
        layout = k.layout(broadcast([k.shape(x), k.shape(y)]), (x, y))
        values = [Expression(k.build, k.at(one, layout)).floating() for one in (x, y)]
        return reduced(k, node, formula(*values, **given), layout, how)


def _smooth_l1(x: Expression, y: Expression, beta: float) -> Expression:
    distance = (x - y).abs()
    if beta == 0:
        return distance
    return (distance < beta).choose(distance * distance * (0.5 / beta), distance - 0.5 * beta)


def _huber(x: Expression, y: Expression, delta: float) -> Expression:
    d = (x - y).abs()
    return (d <= delta).choose(d * d * 0.5, (d - 0.5 * delta) * delta)


def _kl_div(x: Expression, y: Expression, log_target: bool) -> Expression:
    if log_target:
        return y.exp() * (y - x)
    # 0 log 0 counts as 0, and NaN stays.
    entropy = y.call("eq", 0.0).choose(0.0, y * y.log())
    return entropy - y * x


def _poisson(x: Expression, y: Expression, log_input: bool, full: bool, eps: float) -> Expression:
    loss = x.exp() - y * x if log_input else x - y * (x + eps).log()
    if full:
        # Stirling's approximation of log(y!), for counts above 1.
        stirling = y * y.log() - y + (y * (2 * math.pi)).log() * 0.5
        loss = loss + (y > 1.0).choose(stirling, 0.0)
    return loss


_elementwise("mse_loss", "reduction=1", lambda x, y: (x - y) * (x - y))
_elementwise("l1_loss", "reduction=1", lambda x, y: (x - y).abs())
_elementwise("smooth_l1_loss", "reduction=1, beta=1.0", _smooth_l1)
_elementwise("huber_loss", "reduction=1, delta=1.0", _huber)
_elementwise("kl_div", "reduction=1, log_target=False", _kl_div)
_elementwise("soft_margin_loss", "reduction=1", lambda x, y: (-y * x).softplus())
_elementwise("poisson_nll_loss", "log_input=True, full=False, eps=1e-8, reduction=1", _poisson)
_elementwise(
    "hinge_embedding_loss",
    "margin=1.0, reduction=1",
    lambda x, y, margin: (
        y.call("ne", 1.0).choose((margin - x).maximum(0.0), 0.0) + y.call("ne", -1.0).choose(x, 0.0)
    ),
)


@operator("binary_cross_entropy", "x, y, weight=None, reduction=1", _broadcast_work)
def _bce(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    x, y, weight = arguments["x"], arguments["y"], arguments["weight"]
    layout = k.layout(k.shape(x), (x, y))
    p, t = (Expression(k.build, k.at(one, layout)).floating() for one in (x, y))
    # torch bounds the logarithms at -100.
    value = (t - 1.0) * (-p).call("log1p").maximum(-100.0) - t * p.log().maximum(-100.0)
    if weight is not None:
        value = value * Expression(k.build, k.at(weight, layout))
    return reduced(k, node, value, layout, arguments["reduction"])


@operator("binary_cross_entropy_with_logits", "x, y, weight=None, pos_weight=None, reduction=1",
          _broadcast_work)  # fmt: skip
def _bce_logits(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    x, y = arguments["x"], arguments["y"]
    layout = k.layout(k.shape(x), (x, y))
    z, t = (Expression(k.build, k.at(one, layout)).floating() for one in (x, y))
    soft = (-z).softplus()
    if arguments["pos_weight"] is not None:
        positive = Expression(k.build, k.at(arguments["pos_weight"], layout))
        soft = soft * (1.0 + (positive - 1.0) * t)
    value = (1.0 - t) * z + soft
    if arguments["weight"] is not None:
        value = value * Expression(k.build, k.at(arguments["weight"], layout))
    return reduced(k, node, value, layout, arguments["reduction"])


@operator("margin_ranking_loss", "a, b, y, margin=0.0, reduction=1", _broadcast_work)
def _margin_ranking(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    givens = (arguments["a"], arguments["b"], arguments["y"])
    layout = k.layout(broadcast([k.shape(given) for given in givens]), givens)
    a, b, y = (Expression(k.build, k.at(given, layout)).floating() for given in givens)
    value = (-y * (a - b) + float(arguments["margin"])).maximum(0.0)
    return reduced(k, node, value, layout, arguments["reduction"])


def _class_dim(shape: tuple[int, ...]) -> int:
    return 0 if len(shape) == 1 else 1


def _class_work(node: Node, arguments: Arguments) -> Work:
    shape = shape_of(arguments["self"])
    return row_work(shape, (_class_dim(shape),), composite=True)


def _labels(k: Lowering, rows: Rows, arguments: Arguments) -> tuple[Expression, Expression]:
    """The class index of each row, and whether it counts."""
    target: Any = arguments["target"]
    if not isinstance(target, External) or "int" not in target.spec.dtype:
        raise Refused("a target of probabilities")
    if arguments["weight"] is not None and arguments.get("label_smoothing", 0.0):
        raise Refused("weights of classes with smoothed labels")
    label = Expression(k.build, k.at(target, rows.left(keepdim=False)))
    return label, label.call("ne", int(arguments["ignore_index"]))


def _class_weight(k: Lowering, given: Given, label: Expression) -> Expression:
    """The weight of a label's class; of any class where the label is none."""
    size = k.shape(given)[0]
    at = Index(k.build.within(label.value, size, label.value))
    return Expression(k.build, k.read(given, (k.there(Extent(size), at),))).floating()


def _by_probabilities(k: Lowering, node: Node, rows: Rows, arguments: Arguments) -> Tensor:
    """Cross-entropy with a distribution for each row; the mean is over rows."""
    target = Expression(k.build, k.at(arguments["target"], rows.layout)).floating()
    smoothing = float(arguments["label_smoothing"])
    if arguments["weight"] is not None:
        raise Refused("weights of classes with a target of probabilities")
    if smoothing:
        target = target * (1.0 - smoothing) + smoothing / rows.count()
    loss = -rows.sum(target * log_softmax(rows))
    return reduced(k, node, loss, rows.left(keepdim=False), arguments["reduction"])


def _negative_log_likelihood(
    k: Lowering, node: Node, rows: Rows, scores: Expression, arguments: Arguments
) -> Tensor:
    """Minus the score of each row's class, where it counts; the mean is over those that count."""
    label, counts = _labels(k, rows, arguments)
    picked = Expression(k.build, k.build.gather(scores.value, label.value))
    loss = -picked
    smoothing = float(arguments.get("label_smoothing", 0.0))
    if smoothing:
        spread = -rows.sum(scores) / rows.count()
        loss = (1.0 - smoothing) * loss + smoothing * spread
    share = counts.to(loss.type)
    if arguments["weight"] is not None:
        weight = _class_weight(k, arguments["weight"], label)
        loss, share = loss * weight, counts.choose(weight, 0.0)
    loss = counts.choose(loss, 0.0)
    layout = rows.left(keepdim=False)
    how = arguments["reduction"]
    if how != MEAN:
        return reduced(k, node, loss, layout, how)
    atoms = spanned(layout)
    total = Expression(k.build, k.reduce("sum", loss.value, atoms, layout))
    counted = k.reduce("sum", share.value, atoms, layout)
    value = total / Expression(k.build, counted)
    return Tensor(value.to(value_type(node.spec.dtype)).value, (), node.spec.dtype)


@operator("cross_entropy_loss",
          "self, target, weight=None, reduction=1, ignore_index=-100, label_smoothing=0.0",
          _class_work)  # fmt: skip
def _cross_entropy(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    dim = _class_dim(k.shape(arguments["self"]))
    rows = Rows(k, arguments["self"], (dim,))
    if k.shape(arguments["target"]) == k.shape(arguments["self"]):
        return _by_probabilities(k, node, rows, arguments)
    return _negative_log_likelihood(k, node, rows, log_softmax(rows), arguments)


@operator("nll_loss_nd nll_loss nll_loss2d",
          "self, target, weight=None, reduction=1, ignore_index=-100", _class_work)  # fmt: skip
def _nll(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    dim = _class_dim(k.shape(arguments["self"]))
    rows = Rows(k, arguments["self"], (dim,))
    return _negative_log_likelihood(k, node, rows, rows.full, arguments)


def _triplet_work(node: Node, arguments: Arguments) -> Work:
    shape = shape_of(arguments["anchor"])
    return row_work(shape, (len(shape) - 1,), composite=True)


@operator("triplet_margin_loss", "anchor, positive, negative, margin=1.0, p=2.0, eps=1e-6, "
          "swap=False, reduction=1", _triplet_work)  # fmt: skip
def _triplet(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    givens = tuple(arguments[name] for name in ("anchor", "positive", "negative"))
    layout = k.layout(k.shape(givens[0]), givens)
    anchor, *others = (Expression(k.build, k.at(given, layout)).floating() for given in givens)
    distances: list[Expression] = []
    rows = None
    for other in others:
        difference = anchor - other + float(arguments["eps"])
        rows = Rows(k, Tensor(difference.value, layout, node.spec.dtype), (len(layout) - 1,))
        distances.append(norm(rows, float(arguments["p"])))
    assert rows is not None
    if arguments["swap"]:
        across = Expression(k.build, k.at(givens[1], layout)).floating()
        across = across - others[1] + float(arguments["eps"])
        rows = Rows(k, Tensor(across.value, layout, node.spec.dtype), (len(layout) - 1,))
        distances[1] = distances[1].minimum(norm(rows, float(arguments["p"])))
    loss = (distances[0] - distances[1] + float(arguments["margin"])).maximum(0.0)
    return reduced(k, node, loss, rows.left(keepdim=False), arguments["reduction"])


def _embedding_work(node: Node, arguments: Arguments) -> Work:
    shape = shape_of(arguments["a"])
    return row_work(shape, (len(shape) - 1,), composite=True)


@operator("cosine_embedding_loss", "a, b, target, margin=0.0, reduction=1", _embedding_work)
def _cosine_embedding(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    a, b = arguments["a"], arguments["b"]
    layout = k.layout(k.shape(a), (a, b))
    if len(layout) != 2:
        raise Refused("the cosine of single vectors")
    rows = Rows(k, Tensor(k.at(a, layout), layout, node.spec.dtype), (1,))
    x, y = rows.full, Expression(k.build, k.at(b, layout)).floating()
    # torch adds this to the squared lengths.
    tiny = 1e-12
    lengths = ((rows.sum(x * x) + tiny) * (rows.sum(y * y) + tiny)).sqrt()
    cosine = rows.sum(x * y) / lengths
    left = rows.left(keepdim=False)
    target = Expression(k.build, k.at(arguments["target"], left)).floating()
    apart = (cosine - float(arguments["margin"])).maximum(0.0)
    same, other = target.call("eq", 1.0), target.call("eq", -1.0)
    loss = same.choose(1.0 - cosine, other.choose(apart, 0.0))
    return reduced(k, node, loss, left, arguments["reduction"])
