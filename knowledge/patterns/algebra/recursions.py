"""Loops whose steps are linear in the one before, or its maximum: found where they are stacked.

h = a[t] * h + b[t], a moving average, a sum, product, maximum or minimum so far.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import operator, producer
from knowledge.patterns.algebra.parts import gathering_of
from knowledge.patterns.algebra.stacks import LEAST, is_made_of_parts

DEEPEST = 4
EXTREMES = {"maximum": "max", "minimum": "min", "max": "max", "min": "min"}


@dataclass(frozen=True)
class Term:
    """A number, times a value if there is one."""

    number: float
    ref: Ref | None = None

    def __bool__(self) -> bool:
        return self.ref is not None or self.number != 0


@dataclass(frozen=True)
class Step:
    """factor * h + addend, or the larger (`max`) or smaller (`min`) of h and the addend."""

    kind: str
    factor: Term
    addend: Term


@dataclass(frozen=True)
class Recursion:
    """Steps that are laid side by side along `dim` of what `node` makes.

    `values` are in the order of time, `backwards` if they lie the other way round. The first of
    them is `start` itself where there is one step less.
    """

    node: str
    dim: int
    values: tuple[Ref, ...]
    steps: tuple[Step, ...]
    start: Ref
    backwards: bool

    @property
    def holds_start(self) -> bool:
        """Whether the first value is what the loop starts from."""
        return len(self.steps) < len(self.values)


def recursion_of(graph: OpGraph, node: Node) -> Recursion | None:
    """The recursion whose steps a call of `stack` or `cat` lays side by side."""
    found = gathering_of(graph, node.name) if operator(node) in ("stack", "cat") else None
    if found is None or found.flat or len(found.refs) < LEAST:
        return None
    for backwards in (False, True):
        values = found.refs[::-1] if backwards else found.refs
        steps = _steps(graph, values)
        if steps:
            first, start = _first(graph, values[0], steps[0])
            every = (*([first] if first is not None else []), *steps)
            return Recursion(node.name, found.dim, values, every, start, backwards)
    return None


def _steps(graph: OpGraph, values: Sequence[Ref]) -> list[Step]:
    """How each value but the first follows from the one before it; none unless alike."""
    found: list[Step] = []
    for last, value in pairwise(values):
        step = _step(graph, value, last)
        if step is None or (found and not _alike(step, found[0])):
            return []
        found.append(step)
    return found


def _alike(one: Step, other: Step) -> bool:
    """Whether two steps differ in their tensors alone."""
    pairs = ((one.factor, other.factor), (one.addend, other.addend))
    return one.kind == other.kind and all(
        a.number == b.number and (a.ref is None) == (b.ref is None) for a, b in pairs
    )


def _first(graph: OpGraph, value: Ref, second: Step) -> tuple[Step | None, Ref]:
    """How the first value follows from another one, and which; else it is the start itself."""
    for start in _leaves(graph, value):
        step = _step(graph, value, start)
        if step is None or not _alike(step, second):
            continue
        pairs = ((step.factor.ref, second.factor.ref), (step.addend.ref, second.addend.ref))
        if all(_follows(graph, one, other) for one, other in pairs):
            return step, start
    return None, value


def _follows(graph: OpGraph, one: Ref | None, other: Ref | None) -> bool:
    """Whether the values of two steps are neighbours in one tensor, the same, or made alike."""
    if one is None or other is None or one == other:
        return one == other
    return is_made_of_parts(graph, (one, other))


def _leaves(graph: OpGraph, value: Ref, depth: int = 0) -> Iterator[Ref]:
    node = producer(graph, value)
    inside = node is not None and operator(node) in ("add", "sub", "mul", *EXTREMES)
    if node is None or not inside or depth > DEEPEST:
        yield value
        return
    for ref in node.refs:
        yield ref
        yield from _leaves(graph, ref, depth + 1)


def _step(graph: OpGraph, value: Ref, last: Ref) -> Step | None:
    """How a value follows from the last one; neither may be spread over the other."""
    if value == last or not _fits(graph, last, value):
        return None
    node = producer(graph, value)
    if operator(node) in EXTREMES and node is not None and len(node.args) == 2:
        others = [ref for ref in node.refs if ref != last]
        if len(node.refs) != 2 or len(others) != 1 or not _fits(graph, others[0], value):
            return None
        return Step(EXTREMES[operator(node)], Term(1.0), Term(1.0, others[0]))
    found = _linear(graph, value, last, 0)
    if found is None or not found.factor:
        return None
    refs = [term.ref for term in (found.factor, found.addend) if term.ref is not None]
    fits = all(_fits(graph, ref, value) for ref in refs)
    return found if fits and (refs or found.addend) else None


def _fits(graph: OpGraph, ref: Ref, value: Ref) -> bool:
    """Whether a tensor has another one's shape and type."""
    one, other = graph.spec_of(ref), graph.spec_of(value)
    return (one.shape, one.dtype) == (other.shape, other.dtype)


def _linear(graph: OpGraph, value: Ref, last: Ref, depth: int) -> Step | None:
    """A value as factor * last + addend; None where it is neither that nor one tensor."""
    if value == last:
        return Step("linear", Term(1.0), Term(0.0))
    alone = Step("linear", Term(0.0), Term(1.0, value))
    node = producer(graph, value)
    name = operator(node)
    if node is None or name not in ("add", "sub", "mul") or depth > DEEPEST:
        return alone
    if len(node.args) != 2 or node.kwargs:
        return alone
    sides = [_side(graph, one, last, depth + 1) for one in node.args]
    one, other = sides
    if one is None or other is None:
        return None
    if not one.factor and not other.factor:
        number, term = sorted((one.addend, other.addend), key=lambda each: each.ref is not None)
        scaled = name == "mul" and number.ref is None and term.ref is not None
        return Step("linear", Term(0.0), _times(term, number.number)) if scaled else alone
    if name == "mul":
        return _product(one, other)
    if name == "sub":
        other = Step("linear", _times(other.factor, -1.0), _times(other.addend, -1.0))
    factor, addend = _sum(one.factor, other.factor), _sum(one.addend, other.addend)
    return None if factor is None or addend is None else Step("linear", factor, addend)


def _side(graph: OpGraph, given: object, last: Ref, depth: int) -> Step | None:
    if isinstance(given, Ref):
        return _linear(graph, given, last, depth)
    if isinstance(given, int | float) and not isinstance(given, bool):
        return Step("linear", Term(0.0), Term(float(given)))
    return None


def _times(term: Term, number: float) -> Term:
    return replace(term, number=term.number * number)


def _sum(one: Term, other: Term) -> Term | None:
    if not one or not other:
        return one or other
    if one.ref is None and other.ref is None:
        return Term(one.number + other.number)
    return None


def _product(one: Step, other: Step) -> Step | None:
    """The product of what holds the last value and of what doesn't."""
    if one.factor and other.factor:
        return None
    holds, by = (one, other.addend) if one.factor else (other, one.addend)
    if by.ref is None:
        return Step("linear", _times(holds.factor, by.number), _times(holds.addend, by.number))
    if holds.addend or holds.factor.ref is not None:
        return None
    return Step("linear", Term(holds.factor.number * by.number, by.ref), Term(0.0))
