"""Reductions and softmax as fused-loop values."""

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

from knowledge.loops.expression import Expression
from knowledge.loops.form import Fold, Refused, Value, value_type
from knowledge.loops.lower import Lowering
from knowledge.loops.operators import Arguments, External, Given, Tensor, Work, operator, shape_of
from knowledge.loops.pointwise import compute
from knowledge.loops.shapes import Layout, broadcast, spanned
from knowledge.opgraph import Node

# Farther than any column.
NOWHERE = (1 << 63) - 1


def reduced_dims(rank: int, dim: Any) -> tuple[int, ...]:
    """Dimensions as sorted, non-negative numbers; None and [] mean all of them."""
    if dim is None or dim == []:
        return tuple(range(rank))
    given: Iterable[int] = dim if isinstance(dim, list) else [dim]
    return tuple(sorted(one % rank for one in given)) if rank else ()


def row_work(shape: tuple[int, ...], dims: tuple[int, ...], composite: bool) -> Work:
    """The work of reducing a shape over some dimensions.

    A reduction of everything to one number has no rows, unless it is part of a composite that needs
    the number for each element again.

    Raises:
        Refused: the dimensions are not neighbours.
    """
    telling = [dim for dim in dims if shape[dim] != 1]
    if not telling:
        return Work(shape)
    between = [dim for dim in range(telling[0], telling[-1] + 1) if dim not in dims]
    if any(shape[dim] != 1 for dim in between):
        raise Refused("it reduces over dimensions that are not neighbours")
    if not composite and prod(shape[dim] for dim in telling) == prod(shape):
        return Work(shape)
    return Work(shape, telling[0], telling[-1] + 1)


def over(
    name: str = "self", dim: str = "dim", composite: bool = False
) -> Callable[[Node, Arguments], Work]:
    """The work of a call that reduces its argument `name` over its argument `dim`."""

    def work(node: Node, arguments: Arguments) -> Work:
        shape = shape_of(arguments[name])
        return row_work(shape, reduced_dims(len(shape), arguments.get(dim)), composite)

    return work


# A row that is swept several times is one thread's; a single one longer than this is better shared.
LONGEST_ALONE = 1 << 18


def over_short(what: str) -> Callable[[Node, Arguments], Work]:
    """The work of a call that sweeps rows several times, unless all is one long row."""

    def work(node: Node, arguments: Arguments) -> Work:
        shape, dim = shape_of(arguments["self"]), arguments["dim"]
        dims = reduced_dims(len(shape), None if isinstance(dim, bool) else dim)
        if prod(shape[dim] for dim in dims) == prod(shape) > LONGEST_ALONE:
            raise Refused(f"{what} of one long row")
        return row_work(shape, dims, composite=True)

    return work


class Rows:
    """One argument of a reducing call, the atoms reduced over, and shared formulas.

    Args:
        k: the lowering.
        given: the argument.
        dims: its dimensions that are reduced over.
        dtype: what its elements are brought to first.
    """

    def __init__(
        self, k: Lowering, given: Given, dims: tuple[int, ...], dtype: str | None = None
    ) -> None:
        self.k = k
        self.tensor = k.place(given)
        self.layout = self.tensor.layout
        self.dims = dims
        self.atoms = spanned(tuple(self.layout[dim] for dim in dims))
        self.x = Expression(k.build, self.tensor.value)
        if dtype is not None:
            self.x = self.x.to(value_type(dtype))

    @property
    def full(self) -> Expression:
        """The argument in floating point."""
        return self.x.floating()

    def fold(self, fold: Fold, value: Expression) -> Expression:
        """A value reduced; bools as whole numbers."""
        value = value.to("int64_t") if value.type == "bool" else value
        number = self.k.reduce(fold, value.value, self.atoms, self.layout)
        return Expression(self.k.build, number)

    def sum(self, value: Expression) -> Expression:
        """The sum of a value."""
        return self.fold("sum", value)

    def count(self) -> Expression:
        """How many elements are reduced."""
        kind = self.full.type
        return Expression(self.k.build, self.k.build.count(tuple(sorted(self.atoms)), kind))

    def mean(self, value: Expression) -> Expression:
        """The mean of a value."""
        return self.sum(value) / self.count()

    def variance(self, correction: float) -> tuple[Expression, Expression]:
        """Variance and mean, in two passes over the row, which is in cache."""
        mean = self.mean(self.full)
        centred = self.full - mean
        divisor = self.count()
        if correction:
            divisor = (divisor - float(correction)).maximum(0.0)
        return self.sum(centred * centred) / divisor, mean

    def left(self, keepdim: bool) -> Layout:
        """The layout of what a reduction leaves."""
        pairs = enumerate(self.layout)
        if keepdim:
            return tuple(() if index in self.dims else dim for index, dim in pairs)
        return tuple(dim for index, dim in pairs if index not in self.dims)

    def result(self, value: Expression, dtype: str, keepdim: bool) -> Tensor:
        """A reduced value as the call's result."""
        return Tensor(value.to(value_type(dtype)).value, self.left(keepdim), dtype)

    def same(self, value: Expression, dtype: str) -> Tensor:
        """A value of the argument's own shape as the call's result."""
        return Tensor(value.to(value_type(dtype)).value, self.layout, dtype)


def rows_of(k: Lowering, node: Node, arguments: Arguments) -> Rows:
    """The rows of `self`, brought to the type that is asked for."""
    given = arguments["self"]
    asked = dtype_of(node) if isinstance(arguments.get("dtype"), str) else None
    return Rows(k, given, reduced_dims(len(k.shape(given)), arguments.get("dim")), asked)


def dtype_of(node: Node) -> str:
    """The dtype of a call's first result."""
    result = node.result[0] if isinstance(node.result, tuple) else node.result
    assert result is not None
    return result.dtype


def _simple(
    names: str,
    formula: Callable[[Rows], Expression],
    work: Callable[[Node, Arguments], Work] | None = None,
) -> None:
    """Reductions to one number a row."""

    @operator(names, "self, dim=None, keepdim=False, dtype=None", work or over())
    def lower(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
        # Without a dimension, the second argument of the overload is the dtype, which the result
        # tells.
        if isinstance(arguments["dim"], str):
            arguments = {**arguments, "dim": None, "dtype": arguments["dim"]}
        rows = rows_of(k, node, arguments)
        return rows.result(formula(rows), dtype_of(node), bool(arguments["keepdim"]))


def _log_sum_exp(rows: Rows) -> Expression:
    top = rows.fold("max", rows.full)
    # Where the whole row is -inf (or its top +inf), x - top would be NaN.
    safe = (top.abs() < float("inf")).choose(top, top.call("isnan").choose(top, 0.0))
    return rows.sum((rows.full - safe).exp()).log() + safe


_simple("sum", lambda rows: rows.sum(rows.x))
_simple("mean", lambda rows: rows.mean(rows.full))
_simple("amax", lambda rows: rows.fold("max", rows.x))
_simple("amin", lambda rows: rows.fold("min", rows.x))
_simple("prod", lambda rows: rows.fold("prod", rows.x))
_simple("logsumexp", _log_sum_exp, over_short("logsumexp"))
_simple("any", lambda rows: rows.fold("max", rows.x.to("bool")))
_simple("all", lambda rows: rows.fold("min", rows.x.to("bool")))


def _max_work(node: Node, arguments: Arguments) -> Work:
    other = arguments["dim"]
    if isinstance(other, External):
        return Work(node.spec.shape)
    shape = shape_of(arguments["self"])
    return row_work(shape, reduced_dims(len(shape), other), composite=False)


@operator("max min", "self, dim=None, keepdim=False", _max_work)
def _max(k: Lowering, node: Node, arguments: Arguments) -> Tensor | tuple[Tensor | None, ...]:
    largest = node.target.startswith("aten.max")
    other = arguments["dim"]
    if isinstance(other, Tensor | External):
        return compute(
            k, node, [arguments["self"], other],
            lambda x, y: x.maximum(y) if largest else x.minimum(y),
        )  # fmt: skip
    rows = rows_of(k, node, arguments)
    folded = rows.fold("max" if largest else "min", rows.x)
    result = rows.result(folded, dtype_of(node), bool(arguments["keepdim"]))
    if not isinstance(node.result, tuple):
        return result
    if rows.atoms and not rows.k.domain.structured:
        return result, None
    where = rows.result(_first_place(rows, folded), "int64", bool(arguments["keepdim"]))
    return result, where


def _first_place(rows: Rows, wanted: Expression) -> Expression:
    """The first column that holds a row's extreme, or its first NaN, which then is the extreme."""
    build = rows.k.build
    if not rows.atoms:
        return Expression(build, build.constant(0, "int64_t"))
    here = rows.x.call("eq", wanted)
    if rows.x.type in ("float", "double"):
        here = here.call("or", rows.x.call("isnan"))
    position = build.add(Value(op="position", args=(), type="int64_t", stage="element"))
    nowhere = Expression(build, build.constant(NOWHERE, "int64_t"))
    return rows.fold("min", here.choose(Expression(build, position), nowhere))


@operator("argmax argmin", "self, dim=None, keepdim=False",
          over_short("the place of the extreme"))  # fmt: skip
def _argument_of_extreme(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    rows = rows_of(k, node, arguments)
    extreme = rows.fold("max" if node.target.startswith("aten.argmax") else "min", rows.x)
    return rows.result(_first_place(rows, extreme), "int64", bool(arguments["keepdim"]))


def _correction(arguments: Arguments) -> float:
    if isinstance(arguments["correction"], int | float):
        return float(arguments["correction"])
    return 1.0 if arguments["unbiased"] in (None, True) else 0.0


_VARIANCE = "self, dim=None, unbiased=None, keepdim=False, correction=None"


@operator("var std var_mean std_mean", _VARIANCE, over_short("the spread"))
def _variance(k: Lowering, node: Node, arguments: Arguments) -> Tensor | tuple[Tensor | None, ...]:
    if isinstance(arguments["dim"], bool):
        arguments = {**arguments, "unbiased": arguments["dim"], "dim": None}
    rows = rows_of(k, node, arguments)
    spread, mean = rows.variance(_correction(arguments))
    if "std" in node.target:
        spread = spread.sqrt()
    keepdim = bool(arguments["keepdim"])
    first = rows.result(spread, dtype_of(node), keepdim)
    if not isinstance(node.result, tuple):
        return first
    return first, rows.result(mean, dtype_of(node), keepdim)


def norm(rows: Rows, order: float) -> Expression:
    """The vector norm of a given order."""
    x = rows.full
    if order == 2:
        return rows.sum(x * x).sqrt()
    if order == 1:
        return rows.sum(x.abs())
    if order == float("inf"):
        return rows.fold("max", x.abs())
    if order == float("-inf"):
        return rows.fold("min", x.abs())
    if order == 0:
        return rows.sum(x.call("ne", 0.0).to(x.type))
    return rows.sum(x.abs().call("pow", order)).call("pow", 1.0 / order)


@operator("linalg_vector_norm", "self, ord=2, dim=None, keepdim=False, dtype=None", over())
def _vector_norm(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    rows = rows_of(k, node, arguments)
    value = norm(rows, float(arguments["ord"]))
    return rows.result(value, dtype_of(node), bool(arguments["keepdim"]))


def _linalg_norm_work(node: Node, arguments: Arguments) -> Work:
    dim, order = arguments["dim"], arguments["ord"]
    single = isinstance(dim, int) or (isinstance(dim, list) and len(dim) == 1)
    if not single and order is not None:
        raise Refused("a matrix norm")
    return over()(node, arguments)


@operator("linalg_norm", "self, ord=None, dim=None, keepdim=False, dtype=None", _linalg_norm_work)
def _linalg_norm(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    rows = rows_of(k, node, arguments)
    order = 2.0 if arguments["ord"] is None else float(arguments["ord"])
    return rows.result(norm(rows, order), dtype_of(node), bool(arguments["keepdim"]))


@operator("norm", "self, p=2, dim=None, keepdim=False, dtype=None", over())
def _norm(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    rows = rows_of(k, node, arguments)
    order = 2.0 if arguments["p"] is None else float(arguments["p"])
    return rows.result(norm(rows, order), dtype_of(node), bool(arguments["keepdim"]))


@operator("softmax _softmax", "self, dim, dtype=None", over(composite=True))
def _softmax(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    rows = rows_of(k, node, arguments)
    exponential = (rows.full - rows.fold("max", rows.full)).exp()
    # One division a row; the products differ from quotients by half a unit in the last place.
    inverse = 1.0 / rows.sum(exponential)
    return rows.same(exponential * inverse, dtype_of(node))


@operator("log_softmax _log_softmax", "self, dim, dtype=None", over(composite=True))
def _log_softmax(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    rows = rows_of(k, node, arguments)
    return rows.same(log_softmax(rows), dtype_of(node))


def log_softmax(rows: Rows) -> Expression:
    """The logarithm of the softmax."""
    centred = rows.full - rows.fold("max", rows.full)
    return centred - rows.sum(centred.exp()).log()


def _cosine_work(node: Node, arguments: Arguments) -> Work:
    shape = broadcast([shape_of(arguments["a"]), shape_of(arguments["b"])])
    return row_work(shape, reduced_dims(len(shape), arguments["dim"]), composite=True)


@operator("cosine_similarity", "a, b, dim=1, eps=1e-8", _cosine_work)
def _cosine_similarity(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    a, b = arguments["a"], arguments["b"]
    layout = k.layout(broadcast([k.shape(a), k.shape(b)]), (a, b))
    first = Tensor(k.at(a, layout), layout, node.spec.dtype)
    rows = Rows(k, first, reduced_dims(len(layout), arguments["dim"]))
    x, y = rows.full, Expression(k.build, k.at(b, layout)).floating()
    eps = float(arguments["eps"])
    lengths = rows.sum(x * x).sqrt().maximum(eps) * rows.sum(y * y).sqrt().maximum(eps)
    return rows.result(rows.sum(x * y) / lengths, node.spec.dtype, keepdim=False)


def _distance_work(node: Node, arguments: Arguments) -> Work:
    shape = broadcast([shape_of(arguments["a"]), shape_of(arguments["b"])])
    return row_work(shape, (len(shape) - 1,), composite=True)


@operator("pairwise_distance", "a, b, p=2.0, eps=1e-6, keepdim=False", _distance_work)
def _pairwise_distance(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    a, b = arguments["a"], arguments["b"]
    layout = k.layout(broadcast([k.shape(a), k.shape(b)]), (a, b))
    x = Expression(k.build, k.at(a, layout)).floating()
    y = Expression(k.build, k.at(b, layout)).floating()
    difference = x - y + float(arguments["eps"])
    rows = Rows(k, Tensor(difference.value, layout, node.spec.dtype), (len(layout) - 1,))
    value = norm(rows, float(arguments["p"]))
    return rows.result(value, node.spec.dtype, bool(arguments["keepdim"]))


def _pooled_dims(node: Node) -> int:
    return next(n for n in (1, 2, 3) if f"{n}d" in node.target)


def _pool_work(node: Node, arguments: Arguments) -> Work:
    shape = shape_of(arguments["self"])
    size = arguments["size"]
    if any(one != 1 for one in (size if isinstance(size, list) else [size])):
        raise Refused("pooling to more than one element")
    count = _pooled_dims(node)
    return row_work(shape, tuple(range(len(shape) - count, len(shape))), composite=False)


@operator("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d", "self, size", _pool_work)
def _global_pool(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    rank, count = len(k.shape(arguments["self"])), _pooled_dims(node)
    rows = Rows(k, arguments["self"], tuple(range(rank - count, rank)))
    return rows.result(rows.mean(rows.full), node.spec.dtype, keepdim=True)


def _vector_work(node: Node, arguments: Arguments) -> Work:
    left, right = shape_of(arguments["a"]), shape_of(arguments["b"])
    if len(right) != 1:
        raise Refused("a product of matrices")
    return row_work(left, (len(left) - 1,), composite=True)


@operator("matmul mv dot", "a, b", _vector_work)
def _times_vector(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    rows = Rows(k, arguments["a"], (len(k.shape(arguments["a"])) - 1,))
    other = Expression(k.build, k.at(arguments["b"], rows.layout))
    return rows.result(rows.sum(rows.x * other), node.spec.dtype, keepdim=False)
