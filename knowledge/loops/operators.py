"""The registry of operators: what each aten operator works through, and how it is lowered."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from knowledge.loops.form import Refused
from knowledge.loops.shapes import Layout, Sizes
from knowledge.opgraph import Node, Ref, TensorSpec

if TYPE_CHECKING:
    from knowledge.loops.lower import Lowering


@dataclass(frozen=True)
class Tensor:
    """A tensor made inside the loop: its value, how it lies on the index space, its dtype.

    `ref` says which of the graph's values it is, once it is one.
    """

    value: int
    layout: Layout
    dtype: str
    ref: Ref | None = None


@dataclass(frozen=True)
class External:
    """A tensor that lies as its use wants it: from outside, or computed anew at each use."""

    ref: Ref
    spec: TensorSpec


Given = Tensor | External


@dataclass(frozen=True)
class Work:
    """The elements a call works through: their shape, and the dimensions [first, last) of a row.

    `first` is None where it reduces nothing, or everything to one number.
    """

    shape: tuple[int, ...]
    first: int | None = None
    last: int = 0


Arguments = dict[str, Any]
Lower = Callable[["Lowering", Node, Arguments], Tensor | tuple[Tensor | None, ...]]
Measure = Callable[[Node, Arguments], Work]


@dataclass(frozen=True)
class Operator:
    """How one aten operator is lowered: its parameters with their defaults, work, and values."""

    parameters: tuple[str, ...]
    defaults: Arguments
    work: Measure
    lower: Lower
    view: bool = False
    moves: bool = False

    def bind(self, node: Node, resolve: Callable[[Ref], Given]) -> Arguments:
        """The call's arguments by name, tensors resolved."""
        bound = dict(self.defaults)
        bound.update(zip(self.parameters, node.args, strict=False))
        bound.update(node.kwargs)
        if unknown := set(bound) - set(self.parameters):
            raise Refused(f"{node.target} is given {', '.join(sorted(unknown))}")
        if missing := [name for name in self.parameters if name not in bound]:
            raise Refused(f"{node.target} is not given {missing[0]}")
        return {name: _resolved(bound[name], resolve) for name in self.parameters}


def _resolved(value: Any, resolve: Callable[[Ref], Given]) -> Any:
    if isinstance(value, Ref):
        return resolve(value)
    if isinstance(value, list):
        return [_resolved(item, resolve) for item in value]
    return value


OPERATORS: dict[str, Operator] = {}


def operator(
    names: str, parameters: str, work: Measure, view: bool = False, moves: bool = False
) -> Callable[[Lower], Lower]:
    """Register how some operators are lowered.

    Args:
        names: aten operators without their overloads, separated by spaces.
        parameters: as in a Python signature, e.g. `self, dim, keepdim=False`.
        work: what the call works through.
        view: whether it only renames indices, so that it is worth nothing on its own.
        moves: whether it only reads elements from elsewhere.
    """

    def register(lower: Lower) -> Lower:
        parsed = ast.parse(f"def f({parameters}): pass").body[0]
        assert isinstance(parsed, ast.FunctionDef)
        given = tuple(argument.arg for argument in parsed.args.args)
        values = [ast.literal_eval(default) for default in parsed.args.defaults]
        defaults = dict(zip(given[len(given) - len(values) :], values, strict=True))
        for name in names.split():
            OPERATORS[name] = Operator(given, defaults, work, lower, view, moves)
        return lower

    return register


def operator_of(node: Node) -> Operator:
    """How a call is lowered.

    Raises:
        Refused: nothing is known about its operator.
    """
    parts = node.target.split(".")
    if len(parts) != 3 or parts[0] != "aten" or parts[1] not in OPERATORS:
        raise Refused(f"{node.target} is left to the library")
    return OPERATORS[parts[1]]


def shape_of(given: Given, sizes: Sizes | None = None) -> tuple[int, ...]:
    """The shape of an argument."""
    if isinstance(given, External):
        return given.spec.shape
    assert sizes is not None
    return tuple(prod(sizes[atom] for atom in dim) for dim in given.layout)


def result_shape(node: Node, arguments: Arguments) -> Work:
    """The work of a pointwise call: one step for each element of its result."""
    return Work(node.spec.shape)
