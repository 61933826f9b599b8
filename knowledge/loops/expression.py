"""Values of a loop with Python's operators, so that formulas in the tables read like formulas."""

from __future__ import annotations

from dataclasses import dataclass

from knowledge.loops.form import Builder, ValueType


@dataclass(frozen=True)
class Expression:
    """A value of a loop under construction; numbers meet it in its own type."""

    build: Builder
    value: int

    @property
    def type(self) -> ValueType:
        """The C++ type it is computed in."""
        return self.build.values[self.value].type

    def lift(self, other: Expression | float) -> Expression:
        """Another expression, or a number as one."""
        if isinstance(other, Expression):
            return other
        kind = self.type
        if isinstance(other, float) and kind in ("bool", "int64_t"):
            kind = "float"
        elif kind == "bool" and not isinstance(other, bool):
            kind = "int64_t"
        return Expression(self.build, self.build.constant(other, kind))

    def call(self, name: str, *others: Expression | float) -> Expression:
        """The scalar operator `name` applied to this and others."""
        lifted = [self.lift(other).value for other in others]
        return Expression(self.build, self.build.op(name, self.value, *lifted))

    def to(self, kind: ValueType) -> Expression:
        """The same value in another type."""
        return Expression(self.build, self.build.cast(self.value, kind))

    def floating(self) -> Expression:
        """The same value in floating point."""
        return self if self.type in ("float", "double") else self.to("float")

    def choose(self, yes: Expression | float, no: Expression | float) -> Expression:
        """`yes` where this condition holds, else `no`; at least one of them is an expression."""
        anchor = yes if isinstance(yes, Expression) else no
        assert isinstance(anchor, Expression)
        chosen = self.build.op("where", self.value, anchor.lift(yes).value, anchor.lift(no).value)
        return Expression(self.build, chosen)

    def __add__(self, other: Expression | float) -> Expression:
        return self.call("add", other)

    def __radd__(self, other: float) -> Expression:
        return self.lift(other).call("add", self)

    def __sub__(self, other: Expression | float) -> Expression:
        return self.call("sub", other)

    def __rsub__(self, other: float) -> Expression:
        return self.lift(other).call("sub", self)

    def __mul__(self, other: Expression | float) -> Expression:
        return self.call("mul", other)

    def __rmul__(self, other: float) -> Expression:
        return self.lift(other).call("mul", self)

    def __truediv__(self, other: Expression | float) -> Expression:
        return self.call("div", other)

    def __rtruediv__(self, other: float) -> Expression:
        return self.lift(other).call("div", self)

    def __neg__(self) -> Expression:
        return self.call("neg")

    def __gt__(self, other: Expression | float) -> Expression:
        return self.call("gt", other)

    def __ge__(self, other: Expression | float) -> Expression:
        return self.call("ge", other)

    def __lt__(self, other: Expression | float) -> Expression:
        return self.call("lt", other)

    def __le__(self, other: Expression | float) -> Expression:
        return self.call("le", other)

    def maximum(self, other: Expression | float) -> Expression:
        """The larger; NaN if either is."""
        return self.call("maximum", other)

    def minimum(self, other: Expression | float) -> Expression:
        """The smaller; NaN if either is."""
        return self.call("minimum", other)

    def clamp(self, low: Expression | float, high: Expression | float) -> Expression:
        """Not below `low`, and then not above `high`."""
        return self.maximum(low).minimum(high)

    def exp(self) -> Expression:
        """Its exponential."""
        return self.call("exp")

    def log(self) -> Expression:
        """Its natural logarithm."""
        return self.call("log")

    def sqrt(self) -> Expression:
        """Its square root."""
        return self.call("sqrt")

    def abs(self) -> Expression:
        """Its magnitude."""
        return self.call("abs")

    def sigmoid(self) -> Expression:
        """1 / (1 + exp(-x))."""
        return self.call("sigmoid")

    def softplus(self) -> Expression:
        """log(1 + exp(x)), without overflow."""
        return self.maximum(0.0) + (-self.abs()).exp().call("log1p_unit")
