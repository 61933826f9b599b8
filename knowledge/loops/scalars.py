"""The table of scalar operators: how each is written in C++, and what a loop must know of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scalar:
    """A scalar operator.

    `cpp` is its expression with {0}, {1}, ... for the arguments. `floating` operators compute in
    floating point whatever they are given; a `predicate` makes a bool. `costly` ones are worth
    keeping rather than computing twice.
    """

    cpp: str
    floating: bool = False
    predicate: bool = False
    costly: bool = False


def _function(name: str, costly: bool = True) -> Scalar:
    return Scalar(f"{name}({{0}})", floating=True, costly=costly)


SCALARS: dict[str, Scalar] = {
    "cast": Scalar("{0}"),
    "add": Scalar("{0} + {1}"),
    "sub": Scalar("{0} - {1}"),
    "mul": Scalar("{0} * {1}"),
    "div": Scalar("{0} / {1}", floating=True, costly=True),
    "as_float16": Scalar("float_of_half(half_of({0}))"),
    "as_bfloat16": Scalar("float_of(bfloat16_of({0}))"),
    "as_uint8": Scalar("static_cast<int64_t>(static_cast<uint8_t>({0}))"),
    "as_int8": Scalar("static_cast<int64_t>(static_cast<int8_t>({0}))"),
    "as_int16": Scalar("static_cast<int64_t>(static_cast<int16_t>({0}))"),
    "as_int32": Scalar("static_cast<int64_t>(static_cast<int32_t>({0}))"),
    "neg": Scalar("-{0}"),
    "abs": Scalar("std::abs({0})"),
    "sign": Scalar("static_cast<decltype({0} + 0)>(({0} > 0) - ({0} < 0))"),
    "reciprocal": Scalar("1 / {0}", floating=True, costly=True),
    "floor_int": Scalar("floor_divide({0}, {1})"),
    "trunc_int": Scalar("{0} / {1}"),
    # Of a position by a size: neither is negative.
    "remainder_of": Scalar("{0} % {1}"),
    "maximum": Scalar("nan_max({0}, {1})"),
    "minimum": Scalar("nan_min({0}, {1})"),
    "where": Scalar("{0} ? {1} : {2}"),
    "gt": Scalar("{0} > {1}", predicate=True),
    "ge": Scalar("{0} >= {1}", predicate=True),
    "lt": Scalar("{0} < {1}", predicate=True),
    "le": Scalar("{0} <= {1}", predicate=True),
    "eq": Scalar("{0} == {1}", predicate=True),
    "ne": Scalar("{0} != {1}", predicate=True),
    "and": Scalar("{0} && {1}", predicate=True),
    "or": Scalar("{0} || {1}", predicate=True),
    "not": Scalar("!{0}", predicate=True),
    "xor": Scalar("{0} != {1}", predicate=True),
    "bit_and": Scalar("{0} & {1}"),
    "bit_or": Scalar("{0} | {1}"),
    "bit_xor": Scalar("{0} ^ {1}"),
    "isnan": Scalar("{0} != {0}", predicate=True),
    "isinf": Scalar("std::isinf({0})", predicate=True, floating=True),
    "isfinite": Scalar("std::isfinite({0})", predicate=True, floating=True),
    "sqrt": _function("std::sqrt"),
    "rsqrt": Scalar("1 / std::sqrt({0})", floating=True, costly=True),
    "floor": _function("std::floor", costly=False),
    "ceil": _function("std::ceil", costly=False),
    "trunc": _function("std::trunc", costly=False),
    "round": _function("std::nearbyint", costly=False),
    "exp": _function("vector_exp"),
    "log": _function("vector_log"),
    "log1p": _function("vector_log1p"),
    # Of numbers from 0 to 1.
    "log1p_unit": _function("vector_log1p_unit"),
    "expm1": _function("vector_expm1"),
    "tanh": _function("vector_tanh"),
    "sigmoid": _function("vector_sigmoid"),
    "erf": _function("vector_erf"),
    "exp2": _function("std::exp2"),
    "log2": _function("std::log2"),
    "log10": _function("std::log10"),
    "sin": _function("std::sin"),
    "cos": _function("std::cos"),
    "tan": _function("std::tan"),
    "asin": _function("std::asin"),
    "acos": _function("std::acos"),
    "atan": _function("std::atan"),
    "sinh": _function("std::sinh"),
    "cosh": _function("std::cosh"),
    "asinh": _function("std::asinh"),
    "acosh": _function("std::acosh"),
    "atanh": _function("std::atanh"),
    "erfc": _function("std::erfc"),
    "pow": Scalar("std::pow({0}, {1})", floating=True, costly=True),
    # By a number of moderate size that is known.
    "power": Scalar("vector_pow({0}, {1})", floating=True, costly=True),
    "atan2": Scalar("std::atan2({0}, {1})", floating=True, costly=True),
    "hypot": Scalar("std::hypot({0}, {1})", floating=True, costly=True),
    "copysign": Scalar("std::copysign({0}, {1})", floating=True),
    "fmod": Scalar("std::fmod({0}, {1})", floating=True, costly=True),
    # By a number that is known, not below 2^-16 in size.
    "fmod_by": Scalar("vector_fmod({0}, {1})", floating=True, costly=True),
}
