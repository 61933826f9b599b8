"""Less common pointwise operators, reductions and constant tensors, and their other names."""

import math

from knowledge.loops.expression import Expression
from knowledge.loops.form import Extent, Refused, value_type
from knowledge.loops.lower import Lowering
from knowledge.loops.operators import (
    OPERATORS,
    Arguments,
    Tensor,
    operator,
    result_shape,
)
from knowledge.loops.places import Index
from knowledge.loops.pointwise import compute, register
from knowledge.loops.reductions import dtype_of, over, rows_of
from knowledge.opgraph import Node

# Names that mean what a registered operator does.
ALIASES = {
    "negative": "neg", "absolute": "abs", "special_expit": "sigmoid", "special_exp2": "exp2",
    "special_expm1": "expm1", "special_log1p": "log1p", "special_erf": "erf", "sgn": "sign",
    "special_erfc": "erfc", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "fix": "trunc",
    "special_logsumexp": "logsumexp", "special_round": "round", "arctan2": "atan2",
}  # fmt: skip
OPERATORS.update({alias: OPERATORS[name] for alias, name in ALIASES.items()})


def _log_add(x: Expression, y: Expression, exp: str, scale: float) -> Expression:
    """The logarithm of a sum of powers; of two equal infinities, the infinity."""
    top, distance = x.maximum(y), -(x - y).abs()
    summed = top + distance.call(exp).call("log1p_unit") * scale
    return x.call("eq", y).call("and", x.call("isinf")).choose(top, summed)


def _x_log_y(x: Expression, y: Expression) -> Expression:
    """X log y; 0 where x is 0, whatever y is, but for NaN."""
    x, y = x.floating(), y.floating()
    nothing = x.call("eq", 0.0).call("and", y.call("isnan").call("not"))
    return nothing.choose(0.0, x * y.log())


def _ignoring_nan(x: Expression, y: Expression, name: str) -> Expression:
    if x.type in ("bool", "int64_t") and y.type in ("bool", "int64_t"):
        return x.call(name, y)
    return x.call("isnan").choose(y, y.call("isnan").choose(x, x.call(name, y)))


def _entropy(x: Expression) -> Expression:
    x = x.floating()
    inside = x.call("eq", 0.0).choose(0.0, -x * x.log())
    return (x < 0.0).choose(float("-inf"), inside)


def _sinc(x: Expression) -> Expression:
    angle = x.floating() * math.pi
    return angle.call("eq", 0.0).choose(1.0, angle.call("sin") / angle)


register("logaddexp", "self, other", lambda x, y: _log_add(x, y, "exp", 1.0))
register("logaddexp2", "self, other", lambda x, y: _log_add(x, y, "exp2", 1 / math.log(2)))
register("xlogy xlogy_ special_xlogy", "self, other", _x_log_y)
register("fmax", "self, other", lambda x, y: _ignoring_nan(x, y, "maximum"))
register("fmin", "self, other", lambda x, y: _ignoring_nan(x, y, "minimum"))
register("heaviside", "self, values", lambda x, v: x.call("eq", 0).choose(v, (x > 0).to(x.type)))
register("special_entr", "self", _entropy)
register("sinc special_sinc", "self", _sinc)
register("hypot", "self, other", lambda x, y: x.call("hypot", y))
register("copysign", "self, other", lambda x, y: x.call("copysign", y))
register("deg2rad", "self", lambda x: x.floating() * (math.pi / 180))
register("rad2deg", "self", lambda x: x.floating() * (180 / math.pi))


@operator("type_as", "self, other", result_shape)
def _type_as(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    return compute(k, node, [arguments["self"]], lambda x: x, converts=True)


@operator("logit special_logit", "self, eps=None", result_shape)
def _logit(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    eps = arguments["eps"]

    def formula(x: Expression) -> Expression:
        x = x.floating()
        x = x if eps is None else x.clamp(float(eps), 1.0 - float(eps))
        return (x / (1.0 - x)).log()

    return compute(k, node, [arguments["self"]], formula)


@operator("rrelu rrelu_", "self, lower=0.125, upper=0.3333333333333333, training=False, "
          "generator=None", result_shape)  # fmt: skip
def _rrelu(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    if arguments["training"]:
        raise Refused("rrelu draws random numbers, which the library must do")
    slope = (arguments["lower"] + arguments["upper"]) / 2
    return compute(k, node, [arguments["self"]], lambda x: (x > 0).choose(x, x * slope))


@operator("isclose", "self, other, rtol=1e-05, atol=1e-08, equal_nan=False", result_shape)
def _isclose(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    def formula(x: Expression, y: Expression) -> Expression:
        x, y = x.floating(), y.floating()
        distance = (x - y).abs()
        allowed = (y * float(arguments["rtol"])).abs() + float(arguments["atol"])
        near = distance.call("isfinite").call("and", distance <= allowed)
        near = near.call("or", x.call("eq", y))
        if arguments["equal_nan"]:
            near = near.call("or", x.call("isnan").call("and", y.call("isnan")))
        return near

    return compute(k, node, [arguments["self"], arguments["other"]], formula)


@operator("outer ger", "self, other", result_shape)
def _outer(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    layout = k.layout(node.spec.shape, ())
    sides = [
        k.read(arguments[name], (layout[dim],)) for dim, name in enumerate(("self", "other"))
    ]  # fmt: skip
    return Tensor(k.build.op("mul", *sides), layout, node.spec.dtype)


@operator("one_hot", "self, classes=-1", result_shape)
def _one_hot(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    layout, size = k.layout(node.spec.shape, ()), node.spec.shape[-1]
    label = k.at(arguments["self"], layout[:-1])
    label = k.build.in_range(label, size, f"{node.name}: a class is not one of {size}")
    here = k.build.op("eq", label, k.number(k.index(layout[-1])))
    return Tensor(k.build.cast(here, "int64_t"), layout, node.spec.dtype)


# Reductions.


@operator("nansum nanmean", "self, dim=None, keepdim=False, dtype=None", over())
def _nan_sum(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    rows = rows_of(k, node, arguments)
    if rows.x.type in ("bool", "int64_t"):
        raise Refused("whole numbers, of which none is NaN")
    missing = rows.x.call("isnan")
    value = rows.sum(missing.choose(0.0, rows.x))
    if "nanmean" in node.target:
        value = value / rows.sum(missing.call("not").to(rows.x.type))
    return rows.result(value, dtype_of(node), bool(arguments["keepdim"]))


@operator("count_nonzero", "self, dim=None", over())
def _count(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    rows = rows_of(k, node, arguments)
    return rows.result(rows.sum(rows.x.to("bool").to("int64_t")), "int64", keepdim=False)


@operator("aminmax", "self, dim=None, keepdim=False", over())
def _extremes(k: Lowering, node: Node, arguments: Arguments) -> tuple[Tensor | None, ...]:
    rows = rows_of(k, node, arguments)
    keepdim = bool(arguments["keepdim"])
    low, high = rows.fold("min", rows.x), rows.fold("max", rows.x)
    return rows.result(low, dtype_of(node), keepdim), rows.result(high, dtype_of(node), keepdim)


@operator("diff", "self, n=1, dim=-1, prepend=None, append=None", result_shape)
def _difference(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    if arguments["n"] != 1 or arguments["prepend"] or arguments["append"]:
        raise Refused("differences of differences, or of what is put before or after")
    given, layout = arguments["self"], k.layout(node.spec.shape, ())
    dim = arguments["dim"] % len(layout)
    at, size = k.index(layout[dim]), k.shape(given)[dim]
    ends = [Index(at.value, at.sign, at.offset + step) for step in (1, 0)]
    sides = [
        k.read(given, (*layout[:dim], k.there(Extent(size), end), *layout[dim + 1 :]))
        for end in ends
    ]
    return Tensor(k.build.op("sub", *sides), layout, node.spec.dtype)


# Tensors of one number.

_OPTIONS = "dtype=None, layout=None, device=None, pin_memory=None, memory_format=None"


@operator("zeros empty", f"size, {_OPTIONS}", result_shape, view=True)
@operator("ones", f"size, {_OPTIONS}", result_shape, view=True)
@operator("full", f"size, number, {_OPTIONS}", result_shape, view=True)
@operator("new_zeros new_empty", f"self, size, {_OPTIONS}", result_shape, view=True)
@operator("new_ones", f"self, size, {_OPTIONS}", result_shape, view=True)
@operator("new_full", f"self, size, number, {_OPTIONS}", result_shape, view=True)
@operator("scalar_tensor", f"number, {_OPTIONS}", result_shape, view=True)
def _filled(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    number = arguments.get("number", int("ones" in node.target))
    if not isinstance(number, bool | int | float):
        raise Refused("filled with what only the running op knows")
    layout = k.layout(node.spec.shape, ())
    return Tensor(k.build.constant(number, value_type(node.spec.dtype)), layout, node.spec.dtype)
