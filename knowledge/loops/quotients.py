"""Quotients and what they leave, of floats and of whole numbers, as fused-loop values."""

import math

from knowledge.loops.expression import Expression
from knowledge.loops.form import Refused
from knowledge.loops.lower import Lowering
from knowledge.loops.operators import Arguments, Tensor, operator, result_shape
from knowledge.loops.pointwise import compute, known, register
from knowledge.opgraph import Node

# What `vector_fmod` is made for.
SMALLEST_DIVISOR = 2.0**-16


def _are_whole(x: Expression, y: Expression) -> bool:
    """Whether both are whole numbers, of which one divides the other.

    Raises:
        Refused: the divisor may be 0, which ends a process where torch raises.
    """
    whole = x.type in ("int64_t", "bool") and y.type in ("int64_t", "bool")
    if whole and not known(y):
        raise Refused("whole numbers are divided by what may be 0")
    return whole


def _floor_divide(x: Expression, y: Expression) -> Expression:
    """The quotient rounded down, by way of the remainder, which is NaN for infinite x."""
    if _are_whole(x, y):
        return x.to("int64_t").call("floor_int", y)
    if (size := known(y)) and math.isfinite(size):
        return ((x - _remainder(x, y)) / y).call("round")
    rest = _fmod(x, y)
    quotient = (x - rest) / y
    down = _crosses(rest, y).choose(quotient - 1.0, quotient).call("round")
    return y.call("eq", 0.0).choose(x / y, down)


def _crosses(rest: Expression, y: Expression) -> Expression:
    """Whether a remainder has another sign than the divisor."""
    return (rest < 0.0).call("xor", y < 0.0).call("and", rest.call("ne", 0.0))


def _truncated(x: Expression, y: Expression) -> Expression:
    """The quotient without its fraction."""
    return x.to("int64_t").call("trunc_int", y) if _are_whole(x, y) else (x / y).call("trunc")


def _fmod(x: Expression, y: Expression) -> Expression:
    """What is left of x, with x's sign."""
    if _are_whole(x, y):
        return x - _truncated(x, y) * y
    size = known(y)
    usual = size is not None and SMALLEST_DIVISOR <= abs(size) < math.inf
    return x.call("fmod_by" if usual and x.type in ("float", "double") else "fmod", y)


def _remainder(x: Expression, y: Expression) -> Expression:
    """What is left of x, with y's sign. By fmod, which is exact however large the quotient is."""
    if _are_whole(x, y):
        return x - _floor_divide(x, y) * y
    rest = _fmod(x, y)
    if size := known(y):
        return (rest < 0.0 if size > 0 else rest > 0.0).choose(rest + y, rest)
    return _crosses(rest, y).choose(rest + y, rest)


register("floor_divide", "self, other", _floor_divide)
register("remainder", "self, other", _remainder)
register("fmod", "self, other", _fmod)


@operator("div div_ divide true_divide", "self, other, rounding_mode=None", result_shape)
def _div(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    mode = arguments["rounding_mode"]

    def formula(x: Expression, y: Expression) -> Expression:
        if mode == "floor":
            return _floor_divide(x, y)
        return _truncated(x, y) if mode == "trunc" else x / y

    return compute(k, node, [arguments["self"], arguments["other"]], formula)
