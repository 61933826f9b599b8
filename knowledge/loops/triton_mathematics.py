"""How Triton spells values: types, literals, the scalar operators, and reductions that keep NaN.

`libdevice` is NVIDIA's device library of mathematics: exp, tanh and their kin within 2 units in the
last place (CUDA C++ Programming Guide, mathematical functions). Triton links it so that subnormal
numbers are 0, as they are to `tl.sqrt`, `tl.rsqrt`, `tl.floor` and `tl.ceil` in float32: where the
result would then be far off, the numbers are scaled first, or another instruction is taken.
Division is Triton's `/`, also within 2 units; square roots are correctly rounded.
"""

import re

from knowledge.loops.form import Fold, Refused, Value, ValueType

TYPES: dict[str, str] = {
    "float": "tl.float32",
    "double": "tl.float64",
    "int64_t": "tl.int64",
    "bool": "tl.int1",
}

_LIBDEVICE = (
    "trunc", "exp", "log1p", "expm1", "tanh", "exp2", "log2", "log10", "sin", "cos", "tan", "asin",
    "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erfc",
)  # fmt: skip

# Operators between whose operands a plain Python number takes the type of the other operand.
_INFIX: dict[str, str] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "remainder_of": "{0} % {1}",
    "reciprocal": "1.0 / {0}",
    "maximum": "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "minimum": "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "where": "tl.where({0}, {1}, {2})",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
}
_CALLS: dict[str, str] = {
    "as_float16": "{0}.to(tl.float16).to(tl.float32)",
    "as_bfloat16": "{0}.to(tl.bfloat16).to(tl.float32)",
    "as_uint8": "{0}.to(tl.uint8).to(tl.int64)",
    "as_int8": "{0}.to(tl.int8).to(tl.int64)",
    "as_int16": "{0}.to(tl.int16).to(tl.int64)",
    "as_int32": "{0}.to(tl.int32).to(tl.int64)",
    "neg": "-{0}",
    "abs": "tl.abs({0})",
    "sign": "({0} > 0).to({type}) - ({0} < 0).to({type})",
    "floor_int": "floor_divide({0}, {1})",
    "trunc_int": "{0} // {1}",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "bit_and": "{0} & {1}",
    "bit_or": "{0} | {1}",
    "bit_xor": "{0} ^ {1}",
    "not": "~{0}",
    "xor": "{0} ^ {1}",
    "isnan": "{0} != {0}",
    "isinf": 'tl.abs({0}) == float("inf")',
    "isfinite": 'tl.abs({0}) < float("inf")',
    "sqrt": "tl.sqrt_rn({0})",
    "rsqrt": "1.0 / tl.sqrt_rn({0})",
    "floor": "floor_of({0})",
    "ceil": "ceil_of({0})",
    "round": "libdevice.rint({0})",
    "log": "tl.log({0})",
    "erf": "tl.erf({0})",
    "sigmoid": "1.0 / (1.0 + libdevice.exp(-{0}))",
    "log1p_unit": "libdevice.log1p({0})",
    "pow": "power_of({0}, {1})",
    "power": "power_of({0}, {1})",
    "atan2": "angle_of({0}, {1})",
    "fmod": "rest_of({0}, {1})",
    "fmod_by": "rest_of({0}, {1})",
    "hypot": "libdevice.hypot({0}, {1})",
    "copysign": "libdevice.copysign({0}, {1})",
    **{name: f"libdevice.{name}({{0}})" for name in _LIBDEVICE},
}
# In float64 nothing is taken for 0.
_DOUBLE: dict[str, str] = {
    "sqrt": "tl.sqrt({0})",
    "rsqrt": "1.0 / tl.sqrt({0})",
    "floor": "tl.floor({0})",
    "ceil": "tl.ceil({0})",
    "pow": "libdevice.pow({0}, {1})",
    "power": "libdevice.pow({0}, {1})",
    "atan2": "libdevice.atan2({0}, {1})",
    "fmod": "libdevice.fmod({0}, {1})",
    "fmod_by": "libdevice.fmod({0}, {1})",
}
# One multiplication and the hardware's 2^x: the error grows with the argument, to some 40 units in
# the last place where the result nears the largest float.
_HARDWARE: dict[str, str] = {
    "exp": "tl.exp({0})",
    "sigmoid": "1.0 / (1.0 + tl.exp(-{0}))",
}

_NAN_FOLD = '''@triton.jit
def nan_{0}(a, b):
    """The {1} of two; NaN if either is NaN, as torch has it."""
    return tl.{0}imum(a, b, propagate_nan=tl.PropagateNan.ALL)'''

_HELPERS: dict[str, str] = {
    "nan_max": _NAN_FOLD.format("max", "larger"),
    "nan_min": _NAN_FOLD.format("min", "smaller"),
    "product": '''@triton.jit
def product(a, b):
    """One step of a product over a block."""
    return a * b''',
    "log_add": '''@triton.jit
def log_add(top, total, other_top, other_total):
    """Two sums of exponentials, total * exp(top) each, as one; equal infinities are no NaN."""
    new = tl.maximum(top, other_top, propagate_nan=tl.PropagateNan.ALL)
    left = tl.where(top == new, 1.0, tl.exp(top - new))
    right = tl.where(other_top == new, 1.0, tl.exp(other_top - new))
    return new, total * left + other_total * right''',
    "floor_of": '''@triton.jit
def floor_of(x):
    """The largest whole number up to x: -1 just below 0, where tl.floor takes x for 0."""
    whole = libdevice.trunc(x)
    return whole - (x < whole).to(tl.float32)''',
    "ceil_of": '''@triton.jit
def ceil_of(x):
    """The smallest whole number from x on: 1 just above 0, where tl.ceil takes x for 0."""
    whole = libdevice.trunc(x)
    return whole + (x > whole).to(tl.float32)''',
    "power_of": '''@triton.jit
def power_of(a, b):
    """a to the power b; a subnormal a, which libdevice takes for 0, times 2^64 and then back."""
    small = (tl.abs(a) < 1.1754944e-38) & (a != 0.0)
    found = libdevice.pow(tl.where(small, a * 18446744073709551616.0, a), b)
    return tl.where(small, found * libdevice.exp2(-64.0 * b), found)''',
    "angle_of": '''@triton.jit
def angle_of(y, x):
    """atan2 of two numbers: both times 2^64 where libdevice might take one for 0."""
    small = (tl.abs(y) < 1e-18) & (tl.abs(x) < 1e-18)
    scale = tl.where(small, 18446744073709551616.0, 1.0)
    return libdevice.atan2(y * scale, x * scale)''',
    "rest_of": '''@triton.jit
def rest_of(a, b):
    """fmod of two numbers: both times 2^64 where libdevice would take b for 0."""
    small = (tl.abs(b) < 1.1754944e-38) & (tl.abs(a) < 1e18)
    scale = tl.where(small, 18446744073709551616.0, 1.0)
    found = libdevice.fmod(a * scale, b * scale)
    return tl.where(small, found / scale, found)''',
    "floor_divide": '''@triton.jit
def floor_divide(a, b):
    """The quotient rounded down; Triton's own is rounded to zero."""
    rest = a % b
    down = (rest != 0) & ((rest < 0) != (b < 0))
    return a // b - down.to(tl.int64)''',
}


def literal(number: float | int | bool, kind: ValueType) -> str:
    """A number as Python writes it; it takes the type of what it meets."""
    if kind == "bool":
        return "True" if number else "False"
    if kind == "int64_t":
        return str(int(number))
    value = float(number)
    if value != value or value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    return repr(value)


def filled(number: float | int | bool, kind: ValueType, shape: str = "()") -> str:
    """A tensor of one number in its own type: Triton may round a plain float to 32 bits."""
    return f"tl.full({shape}, {literal(number, kind)}, {TYPES[kind]})"


def takes_numbers(op: str) -> bool:
    """Whether plain Python numbers may stand for operands."""
    return op in _INFIX


def expression(value: Value, args: list[str], hardware: bool) -> str:
    """A scalar operator on arguments that are names or, where `takes_numbers`, literals.

    Raises:
        Refused: arithmetic on bools, which Triton does in one bit, or an operator that has no form.
    """
    if value.op == "cast":
        return f"{args[0]} != 0" if value.type == "bool" else f"{args[0]}.to({TYPES[value.type]})"
    if value.type == "bool" and value.op in ("add", "sub", "mul", "neg", "maximum", "minimum"):
        raise Refused(f"{value.op} of truth values has no form in Triton")
    double = _DOUBLE if value.type == "double" else {}
    table = {**_INFIX, **_CALLS, **double, **(_HARDWARE if hardware else {})}
    if value.op not in table:
        raise Refused(f"{value.op} has no form in Triton")
    return table[value.op].format(*args, type=TYPES[value.type])


def start_of(fold: Fold, kind: ValueType) -> float | int:
    """What a reduction starts from.

    Raises:
        Refused: a reduction of truth values.
    """
    if kind == "bool":
        raise Refused("a reduction of truth values has no form in Triton")
    if fold in ("sum", "prod"):
        return int(fold == "prod")
    if kind == "int64_t":
        return -(2**63) if fold == "max" else 2**63 - 1
    return float("-inf") if fold == "max" else float("inf")


def joined(fold: Fold, left: str, right: str) -> str:
    """One step of a reduction, element by element."""
    if fold in ("sum", "prod"):
        return f"{left} {'+' if fold == 'sum' else '*'} {right}"
    return f"nan_{fold}({left}, {right})"


def reduced(fold: Fold, block: str, axis: int, keep: bool) -> str:
    """A block reduced along an axis, which is kept with size 1 where `keep` says so."""
    kept = ", keep_dims=True" if keep else ""
    if fold == "sum":
        return f"tl.sum({block}, axis={axis}{kept})"
    return f"tl.reduce({block}, {axis}, {_COMBINE[fold]}{kept})"


_COMBINE = {"max": "nan_max", "min": "nan_min", "prod": "product"}


def helpers(text: str) -> tuple[str, ...]:
    """The definitions that a kernel's text calls, once for a whole module."""
    return tuple(_HELPERS[name] for name in _HELPERS if re.search(rf"\b{name}\b", text))
