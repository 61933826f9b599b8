"""Pointwise aten operators, and those that only rename indices, as fused-loop values."""

import math
from collections.abc import Callable
from typing import Any

from knowledge.loops.expression import Expression
from knowledge.loops.form import Refused, value_type
from knowledge.loops.lower import Lowering
from knowledge.loops.operators import (
    Arguments,
    External,
    Tensor,
    Work,
    operator,
    result_shape,
    shape_of,
)
from knowledge.loops.shapes import broadcast, partition, spanned
from knowledge.opgraph import Node

Formula = Callable[..., Expression]


# They are computed as int64, and wrap where they are stored, or read again.
NARROW = ("uint8", "int8", "int16", "int32")
# What makes none of these numbers leave its range.
_KEEPING = ("load", "maximum", "minimum")


def compute(
    k: Lowering, node: Node, given: list[Any], formula: Formula, *, converts: bool = False
) -> Tensor:
    """A pointwise result: `formula` of the arguments, which broadcast to the call's own shape.

    Raises:
        Refused: whole numbers by way of a float, which has too few digits, unless it `converts`.
    """
    tensors = tuple(one for one in given if isinstance(one, Tensor | External))
    layout = k.layout(node.spec.shape, tensors)
    values = [Expression(k.build, k.number_or(one, layout)) for one in given]
    found, dtype = formula(*values), node.spec.dtype
    kind = value_type(dtype)
    if kind == "int64_t" and found.type in ("float", "double") and not converts:
        raise Refused("whole numbers are computed by way of floating point")
    result = found.to(kind)
    if dtype in NARROW and (converts or k.build.values[result.value].op not in _KEEPING):
        result = result.call(f"as_{dtype}")
    return Tensor(result.value, layout, dtype)


def register(names: str, parameters: str, formula: Formula) -> None:
    """Operators all of whose parameters are tensors or numbers that enter the formula."""

    @operator(names, parameters, result_shape)
    def lower(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
        return compute(k, node, list(arguments.values()), formula)


def _unary(names: str) -> None:
    """Operators that are a scalar operator of the same name."""
    for name in names.split():
        register(f"{name} {name}_", "self", lambda x, name=name: x.call(name))


def _rounding(name: str) -> Formula:
    """A rounding, which leaves whole numbers as they are."""
    return lambda x: x if x.type == "int64_t" else x.call(name)


_unary("neg abs sign reciprocal sqrt rsqrt exp log log1p expm1 tanh sigmoid erf")
for _name in ("floor", "ceil", "trunc"):
    register(f"{_name} {_name}_", "self", _rounding(_name))
_unary("exp2 log2 log10 sin cos tan asin acos atan sinh cosh asinh acosh atanh erfc")
_unary("isnan isinf isfinite")

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
TANH_GELU, CUBIC_GELU = math.sqrt(2 / math.pi), 0.044715


def known(x: Expression) -> float | int | bool | None:
    """The number that an argument is; None for a tensor."""
    value = x.build.values[x.value]
    return value.number if value.op == "constant" else None


def _number(x: Expression) -> float | int | bool:
    """The number that an argument is.

    Raises:
        Refused: it is a tensor.
    """
    number = known(x)
    if number is None:
        raise Refused("a parameter of the operator is a tensor")
    return number


def _scaled(x: Expression, factor: Expression) -> Expression:
    """`x * factor`, without the multiplication where the factor is the number 1."""
    return x if known(factor) == 1 else x * factor


# What `vector_pow` is made for.
MODERATE_EXPONENT = 64


def _power(x: Expression, exponent: Expression) -> Expression:
    """X to a power: by multiplication for small whole exponents, and by square roots for halves."""
    given = known(exponent)
    if given is None:
        return x.call("pow", exponent)
    number = float(given)
    if exponent.type == "float":
        x = x.floating()
    if number == 0.5:
        return x.sqrt()
    if number == -0.5:
        return x.call("rsqrt")
    if not number.is_integer() or abs(number) > 8 or number == 0:
        moderate = 0 < abs(number) <= MODERATE_EXPONENT
        return x.floating().call("power" if moderate else "pow", exponent)
    if number < 0:
        return 1.0 / _power(x.floating(), x.lift(-number))
    half = x
    for _ in range(int(number) - 1):
        half = half * x
    return half


def _elu(x: Expression, alpha: Expression, scale: Expression, slope: Expression) -> Expression:
    below = _scaled(_scaled(_scaled(x, slope).call("expm1"), alpha), scale)
    return (x > 0).choose(_scaled(x, scale), below)


def _celu(x: Expression, alpha: Expression) -> Expression:
    return (x > 0).choose(x, alpha * (x / alpha).call("expm1"))


def _softplus(x: Expression, beta: Expression, threshold: Expression) -> Expression:
    scaled = _scaled(x, beta)
    soft = scaled.softplus()
    if _number(beta) != 1:
        soft = soft / beta
    return (scaled > threshold).choose(x, soft)


def _mish(x: Expression) -> Expression:
    """X * tanh(softplus(x)) with one exponential: tanh(log(1 + e)) = e(e + 2) / (e(e + 2) + 2).

    From 20 on the quotient is 1, in float64 too.
    """
    e = x.minimum(20.0).exp()
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


register("add add_", "self, other, alpha=1", lambda x, y, a: x + _scaled(y, a))
register("sub sub_ subtract", "self, other, alpha=1", lambda x, y, a: x - _scaled(y, a))
register("rsub", "self, other, alpha=1", lambda x, y, a: y - _scaled(x, a))
register("mul mul_ multiply", "self, other", lambda x, y: x * y)
register("maximum", "self, other", lambda x, y: x.maximum(y))
register("minimum", "self, other", lambda x, y: x.minimum(y))
register("pow pow_", "self, exponent", _power)
register("square", "self", lambda x: x * x)
register("atan2", "self, other", lambda x, y: x.call("atan2", y))
register("frac", "self", lambda x: x - x.call("trunc"))
register("relu relu_", "self", lambda x: x.maximum(0))
register("relu6", "self", lambda x: x.clamp(0, 6))
register("hardtanh hardtanh_", "self, low=-1.0, high=1.0", lambda x, a, b: x.clamp(a, b))
register("hardsigmoid", "self", lambda x: (x + 3.0).clamp(0.0, 6.0) * (1 / 6))
register("hardswish hardswish_", "self", lambda x: x * ((x + 3.0).clamp(0.0, 6.0) * (1 / 6)))
register("silu silu_", "self", lambda x: x * x.sigmoid())
register("mish mish_", "self", _mish)
register("log_sigmoid", "self", lambda x: -((-x).softplus()))
register("softplus", "self, beta=1.0, threshold=20.0", _softplus)
register("elu elu_", "self, alpha=1.0, scale=1.0, slope=1.0", _elu)
register("celu", "self, alpha=1.0", _celu)
register(
    "selu selu_",
    "self",
    lambda x: (x > 0).choose(x * SELU_SCALE, x.call("expm1") * (SELU_ALPHA * SELU_SCALE)),
)
register(
    "leaky_relu leaky_relu_", "self, slope=0.01", lambda x, slope: (x > 0).choose(x, x * slope)
)
register("threshold", "self, below, value", lambda x, t, v: (x <= t).choose(v, x))
register("hardshrink", "self, lambd=0.5", lambda x, t: (x.abs() <= t).choose(0.0, x))
register(
    "softshrink",
    "self, lambd=0.5",
    lambda x, t: (x > t).choose(x - t, (x < -t).choose(x + t, x * 0.0)),
)
register("where", "condition, self, other", lambda c, x, y: c.choose(x, y))
register("masked_fill masked_fill_", "self, mask, value", lambda x, m, v: m.choose(v.to(x.type), x))
register("lerp", "self, end, weight", lambda x, y, w: x + w * (y - x))
register("addcmul", "self, a, b, value=1", lambda x, a, b, v: x + _scaled(a * b, v))
register("addcdiv", "self, a, b, value=1", lambda x, a, b, v: x + _scaled(a / b, v))
register("gt greater", "self, other", lambda x, y: x > y)
register("ge greater_equal", "self, other", lambda x, y: x >= y)
register("lt less", "self, other", lambda x, y: x < y)
register("le less_equal", "self, other", lambda x, y: x <= y)
register("eq", "self, other", lambda x, y: x.call("eq", y))
register("ne not_equal", "self, other", lambda x, y: x.call("ne", y))
register("logical_and", "self, other", lambda x, y: x.to("bool").call("and", y.to("bool")))
register("logical_or", "self, other", lambda x, y: x.to("bool").call("or", y.to("bool")))
register("logical_xor", "self, other", lambda x, y: x.to("bool").call("xor", y.to("bool")))
register("logical_not", "self", lambda x: x.to("bool").call("not"))


@operator("bitwise_and __and__ bitwise_or __or__ bitwise_xor __xor__", "self, other", result_shape)
def _bitwise(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    name = next(name for name in ("xor", "and", "or") if name in node.target)
    given = list(arguments.values())
    if node.spec.dtype != "bool":
        return compute(k, node, given, lambda x, y: x.to("int64_t").call(f"bit_{name}", y))
    return compute(k, node, given, lambda x, y: x.to("bool").call(name, y.to("bool")))


@operator("bitwise_not", "self", result_shape)
def _bitwise_not(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    if node.spec.dtype != "bool":
        raise Refused("bitwise work on integers")
    return compute(k, node, [arguments["self"]], lambda x: x.call("not"))


@operator("round", "self, decimals=0", result_shape)
def _round(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    if arguments["decimals"] != 0:
        raise Refused("rounding to decimals")
    return compute(k, node, [arguments["self"]], _rounding("round"))


@operator("clamp clamp_ clip", "self, low=None, high=None", result_shape)
def _clamp(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    low, high = arguments["low"], arguments["high"]
    bounds = [bound for bound in (low, high) if bound is not None]

    def formula(x: Expression, *given: Expression) -> Expression:
        rest = list(given)
        if low is not None:
            x = x.maximum(rest.pop(0))
        return x if high is None else x.minimum(rest.pop(0))

    return compute(k, node, [arguments["self"], *bounds], formula)


@operator("clamp_min clamp_min_ clamp_max clamp_max_", "self, bound", result_shape)
def _clamp_one(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    upper = "clamp_max" in node.target
    given = [arguments["self"], arguments["bound"]]
    return compute(k, node, given, lambda x, b: x.minimum(b) if upper else x.maximum(b))


@operator("gelu gelu_", "self, approximate='none'", result_shape)
def _gelu(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    def exact(x: Expression) -> Expression:
        return x * 0.5 * (1.0 + (x * math.sqrt(0.5)).call("erf"))

    def by_tanh(x: Expression) -> Expression:
        """0.5 x (1 + tanh(u)) = x sigmoid(2u)."""
        u = (x + x * x * x * CUBIC_GELU) * (2 * TANH_GELU)
        return x * u.sigmoid()

    formula = by_tanh if arguments["approximate"] == "tanh" else exact
    return compute(k, node, [arguments["self"]], formula)


@operator("prelu", "self, weight", result_shape)
def _prelu(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    x, weight = arguments["self"], arguments["weight"]
    layout = k.layout(node.spec.shape, (x,))
    value = Expression(k.build, k.at(x, layout))
    if not isinstance(weight, External):
        raise Refused("a slope that is computed in the loop")
    # One slope for each channel, and the channels are dimension 1 whatever the rank is.
    channels = layout[1] if weight.spec.numel > 1 else ()
    slope = Expression(k.build, k.at(weight, (channels,)))
    return Tensor((value > 0).choose(value, value * slope).value, layout, node.spec.dtype)


@operator("nan_to_num", "self, nan=None, posinf=None, neginf=None", result_shape)
def _nan_to_num(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    largest = {"float32": 3.4028234663852886e38, "float64": 1.7976931348623157e308}
    top = largest.get(node.spec.dtype)
    if top is None:
        raise Refused(f"nan_to_num of {node.spec.dtype}")
    nan = arguments["nan"] or 0.0
    high = top if arguments["posinf"] is None else arguments["posinf"]
    low = -top if arguments["neginf"] is None else arguments["neginf"]

    def formula(x: Expression) -> Expression:
        finite = (x > top).choose(float(high), (x < -top).choose(float(low), x))
        return x.call("isnan").choose(float(nan), finite)

    return compute(k, node, [arguments["self"]], formula)


@operator("_to_copy to", "self, dtype=None, layout=None, device=None, pin_memory=None, "
          "non_blocking=False, memory_format=None", result_shape)  # fmt: skip
def _to_copy(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    return _converted(k, node, arguments["self"])


# Of self they take no more than shape and type.
@operator("copy fill", "self, source, non_blocking=False", result_shape, moves=True)
def _copied(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    return _converted(k, node, arguments["source"])


def _converted(k: Lowering, node: Node, given: Any) -> Tensor:
    """An argument in the call's own type, and broadcast to its shape."""
    if "complex" in node.spec.dtype:
        raise Refused("complex numbers")

    def formula(x: Expression) -> Expression:
        # An explicit cast to a half type is meant to round; results of other operators are rounded
        # where they are stored.
        if node.spec.dtype in ("float16", "bfloat16"):
            return x.to("float").call(f"as_{node.spec.dtype}")
        return x

    return compute(k, node, [given], formula, converts=True)


def _like(number: float | None) -> Callable[[Lowering, Node, Arguments], Tensor]:
    def lower(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
        kind = value_type(node.spec.dtype)
        given = arguments["fill_value"] if number is None else number
        if not isinstance(given, bool | int | float):
            raise Refused("filled with a tensor's value")
        layout = k.layout(node.spec.shape, ())
        return Tensor(k.build.constant(given, kind), layout, node.spec.dtype)

    return lower


_OPTIONS = "dtype=None, layout=None, device=None, pin_memory=None, memory_format=None"
operator("zeros_like", f"self, {_OPTIONS}", result_shape)(_like(0))
operator("ones_like", f"self, {_OPTIONS}", result_shape)(_like(1))
operator("full_like", f"self, fill_value, {_OPTIONS}", result_shape)(_like(None))
# Any numbers will do; on its own it is better left to the library, which writes none.
operator("empty_like", f"self, {_OPTIONS}", result_shape, view=True)(_like(0))


@operator("clone contiguous alias detach detach_ lift_fresh_copy", "self, memory_format=None",
          result_shape, view=True)  # fmt: skip
def _same(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    return k.place(arguments["self"])


@operator("dropout dropout_ feature_dropout alpha_dropout", "self, p, train", result_shape,
          view=True)  # fmt: skip
def _dropout(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    if arguments["train"] and arguments["p"] != 0:
        raise Refused("dropout draws random numbers, which the library must do")
    return k.place(arguments["self"])


@operator("view reshape _unsafe_view flatten unsqueeze squeeze unflatten view_as",
          "self, first=None, second=None, third=None", result_shape, view=True)  # fmt: skip
def _view(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    if node.target.endswith(".dtype"):
        raise Refused("the same bits read as another type")
    given = arguments["self"]
    if k.wanted is not None:
        source = partition(k.shape(given), spanned(k.wanted), k.sizes)
        if source is None:
            raise Refused("a view is read elsewhere than its dimensions are")
        return Tensor(k.read(given, source), k.wanted, node.spec.dtype)
    tensor = k.place(given)
    layout = partition(node.spec.shape, spanned(tensor.layout), k.sizes)
    if layout is None:
        raise Refused("a view that cuts the loop's rows elsewhere")
    return Tensor(tensor.value, layout, tensor.dtype)


@operator("expand expand_as", "self, size, implicit=False", result_shape, view=True)
def _expand(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    layout = k.layout(node.spec.shape, (arguments["self"],))
    return Tensor(k.at(arguments["self"], layout), layout, node.spec.dtype)


def _broadcast_work(node: Node, arguments: Arguments) -> Work:
    return Work(broadcast([shape_of(given) for given in arguments["tensors"]]))


@operator("broadcast_tensors", "tensors", _broadcast_work, view=True)
def _broadcast(k: Lowering, node: Node, arguments: Arguments) -> tuple[Tensor | None, ...]:
    givens = tuple(arguments["tensors"])
    layout = k.layout(broadcast([k.shape(given) for given in givens]), givens)
    dtypes = [g.dtype if isinstance(g, Tensor) else g.spec.dtype for g in givens]
    return tuple(
        Tensor(k.at(given, layout), layout, dtype)
        for given, dtype in zip(givens, dtypes, strict=True)
    )
