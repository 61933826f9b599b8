"""Operators that only move elements: each is read where it comes from, by the index arithmetic.

A seam, where what is read changes from one tensor to the next, is a condition on the position, and
printers may cut their loops there.
"""

from math import prod
from typing import Any

from knowledge.loops.form import Extent, Refused, value_type
from knowledge.loops.lower import Lowering
from knowledge.loops.operators import (
    Arguments,
    Given,
    Tensor,
    Work,
    operator,
    result_shape,
)
from knowledge.loops.places import Index
from knowledge.loops.shapes import Layout
from knowledge.opgraph import Node, TensorSpec

# A chain of more conditions than this is no longer cheaper than a copy.
MOST_PIECES = 8


def moved(layout: Layout, dim: int, atoms: tuple[int, ...]) -> Layout:
    """A layout with another dimension in one place."""
    return (*layout[:dim], atoms, *layout[dim + 1 :])


def shifted(index: Index, offset: int, sign: int = 1) -> Index:
    """`sign` times an index, plus an offset."""
    return Index(index.value, index.sign * sign, index.offset * sign + offset)


def result_at(k: Lowering, node: Node, value: int, layout: Layout) -> Tensor:
    """A value at a layout as the call's result, in its type."""
    dtype = node.spec.dtype
    return Tensor(k.build.cast(value, value_type(dtype)), layout, dtype)


def sliced(k: Lowering, given: Given, layout: Layout, dim: int, at: Index) -> int:
    """The value of an argument at another index along one dimension, which is in range."""
    extent = Extent(k.shape(given)[dim])
    return k.read(given, moved(layout, dim, k.there(extent, at)))


def within(k: Lowering, index: Index, size: int) -> Index:
    """An index that may leave its dimension where the value is not used."""
    return Index(k.build.within(k.number(index), size, index.value))


def _first_spec(node: Node) -> TensorSpec:
    results = node.result if isinstance(node.result, tuple) else (node.result,)
    return next(spec for spec in results if spec is not None)


def _first_work(node: Node, arguments: Arguments) -> Work:
    return Work(_first_spec(node).shape)


# Parts of a tensor.


@operator("slice", "self, dim=0, start=None, end=None, step=1", result_shape, view=True, moves=True)
def _slice(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    return _part(k, node, arguments["self"], arguments)


@operator("narrow", "self, dim, start, length", result_shape, view=True, moves=True)
def _narrow(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    return _part(k, node, arguments["self"], {**arguments, "step": 1})


def _part(k: Lowering, node: Node, given: Given, arguments: Arguments) -> Tensor:
    layout, shape = k.layout(node.spec.shape, ()), k.shape(given)
    dim = arguments["dim"] % len(shape)
    if node.spec.shape == shape:
        return result_at(k, node, k.read(given, layout), layout)
    start, step = arguments["start"] or 0, arguments["step"]
    if not isinstance(start, int) or not isinstance(step, int):
        raise Refused("a slice from where only the running op knows")
    start = min(max(start + shape[dim] if start < 0 else start, 0), shape[dim])
    at = k.index(layout[dim])
    if step != 1:
        number = k.build.constant(step, "int64_t")
        at = Index(k.build.op("mul", k.number(at), number))
    at = shifted(at, start)
    return result_at(k, node, sliced(k, given, layout, dim, at), layout)


@operator("select", "self, dim, index", result_shape, view=True, moves=True)
def _select(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    given = arguments["self"]
    layout, shape = k.layout(node.spec.shape, ()), k.shape(given)
    dim, index = arguments["dim"] % len(shape), arguments["index"]
    if not isinstance(index, int):
        raise Refused("a selection that only the running op knows")
    return result_at(k, node, _selected(k, given, layout, dim, index), layout)


def _selected(k: Lowering, given: Given, layout: Layout, dim: int, index: int) -> int:
    """An argument at one index of a dimension that the layout does not have."""
    size = k.shape(given)[dim]
    at = Index(k.build.constant(index % size, "int64_t"))
    return k.read(given, (*layout[:dim], k.there(Extent(size), at), *layout[dim:]))


def _parts(k: Lowering, node: Node, arguments: Arguments) -> tuple[Tensor | None, ...]:
    """Each of several neighbouring parts; elsewhere than they lie, only the one that is wanted."""
    assert isinstance(node.result, tuple)
    given, dim = arguments["self"], arguments["dim"] % len(k.shape(arguments["self"]))
    found: list[Tensor | None] = []
    start = 0
    for number, spec in enumerate(node.result):
        assert spec is not None
        if k.wanted is not None and number != k.part:
            found.append(None)
        else:
            layout = k.layout(spec.shape, ())
            at = shifted(k.index(layout[dim]), start)
            value = sliced(k, given, layout, dim, at)
            found.append(Tensor(value, layout, spec.dtype))
        start += spec.shape[dim]
    return tuple(found)


operator("split split_with_sizes chunk tensor_split", "self, sizes, dim=0", _first_work, view=True,
         moves=True)(_parts)  # fmt: skip


@operator("unbind", "self, dim=0", _first_work, view=True, moves=True)
def _unbind(k: Lowering, node: Node, arguments: Arguments) -> tuple[Tensor | None, ...]:
    assert isinstance(node.result, tuple)
    given, dim = arguments["self"], arguments["dim"] % len(k.shape(arguments["self"]))
    found: list[Tensor | None] = []
    for number, spec in enumerate(node.result):
        assert spec is not None
        if k.wanted is not None and number != k.part:
            found.append(None)
            continue
        layout = k.layout(spec.shape, ())
        found.append(Tensor(_selected(k, given, layout, dim, number), layout, spec.dtype))
    return tuple(found)


@operator("glu", "self, dim=-1", result_shape)
def _glu(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    given, layout = arguments["self"], k.layout(node.spec.shape, ())
    dim = arguments["dim"] % len(layout)
    at = k.index(layout[dim])
    halves = [
        sliced(k, given, layout, dim, shifted(at, offset))
        for offset in (0, node.spec.shape[dim])
    ]  # fmt: skip
    gate = k.build.op("sigmoid", halves[1])
    return result_at(k, node, k.build.op("mul", halves[0], gate), layout)


# Several tensors side by side.


def piecewise(k: Lowering, at: Index, pieces: list[tuple[int, int]]) -> int:
    """The value whose piece an index is in; each piece is its end and its value, in order."""
    if len(pieces) > MOST_PIECES:
        raise Refused(f"{len(pieces)} tensors side by side")
    value = pieces[-1][1]
    for end, piece in reversed(pieces[:-1]):
        value = k.chosen(k.before(at, end), piece, value)
    return value


@operator("cat concat concatenate", "tensors, dim=0", result_shape, moves=True)
def _cat(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    layout = k.layout(node.spec.shape, ())
    dim = arguments["dim"] % len(layout)
    at, kind = k.index(layout[dim]), value_type(node.spec.dtype)
    pieces: list[tuple[int, int]] = []
    end = 0
    for given in arguments["tensors"]:
        shape = k.shape(given)
        if len(shape) != len(layout) or prod(shape) == 0:
            if prod(shape) == 0:
                continue
            raise Refused("tensors of different ranks side by side")
        here = within(k, shifted(at, -end), shape[dim])
        end += shape[dim]
        pieces.append((end, k.build.cast(sliced(k, given, layout, dim, here), kind)))
    return Tensor(piecewise(k, at, pieces), layout, node.spec.dtype)


@operator("stack", "tensors, dim=0", result_shape, moves=True)
def _stack(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    layout = k.layout(node.spec.shape, ())
    dim = arguments["dim"] % len(layout)
    kind, rest = value_type(node.spec.dtype), (*layout[:dim], *layout[dim + 1 :])
    pieces = [
        (number + 1, k.build.cast(k.read(given, rest), kind))
        for number, given in enumerate(arguments["tensors"])
    ]
    at = k.index(layout[dim])
    return Tensor(piecewise(k, at, pieces), layout, node.spec.dtype)


@operator("slice_scatter", "self, source, dim=0, start=None, end=None, step=1", result_shape,
          moves=True)  # fmt: skip
def _slice_scatter(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    given, source = arguments["self"], arguments["source"]
    layout = k.layout(node.spec.shape, ())
    dim, size = arguments["dim"] % len(layout), k.shape(source)[arguments["dim"] % len(layout)]
    start = arguments["start"] or 0
    if arguments["step"] != 1 or not isinstance(start, int) or not size:
        raise Refused("a slice in steps is replaced")
    whole = node.spec.shape[dim]
    start = min(max(start + whole if start < 0 else start, 0), whole)
    at, own = k.index(layout[dim]), k.read(given, layout)
    new = sliced(k, source, layout, dim, within(k, shifted(at, -start), size))
    pieces = [(start, own)] if start else []
    pieces.append((start + size, k.build.cast(new, value_type(node.spec.dtype))))
    pieces += [(whole, own)] if start + size < whole else []
    return Tensor(piecewise(k, at, pieces), layout, node.spec.dtype)


@operator("select_scatter", "self, source, dim, index", result_shape, moves=True)
def _select_scatter(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    given, source = arguments["self"], arguments["source"]
    layout = k.layout(node.spec.shape, ())
    dim = arguments["dim"] % len(layout)
    whole = node.spec.shape[dim]
    index, at, own = arguments["index"] % whole, k.index(layout[dim]), k.read(given, layout)
    new = k.read(source, (*layout[:dim], *layout[dim + 1 :]))
    pieces = [(index, own)] if index else []
    pieces.append((index + 1, k.build.cast(new, value_type(node.spec.dtype))))
    pieces += [(whole, own)] if index + 1 < whole else []
    return Tensor(piecewise(k, at, pieces), layout, node.spec.dtype)


# The same tensor, otherwise.


def _rolled(k: Lowering, given: Given, layout: Layout, turns: list[tuple[int, int]]) -> int:
    """An argument, turned by a number of places along each of some dimensions."""
    if not turns:
        return k.read(given, layout)
    (dim, turn), rest = turns[0], turns[1:]
    size = k.shape(given)[dim]
    if not turn or size == 1:
        return _rolled(k, given, layout, rest)
    if k.build.stage_of(tuple(a for a in layout[dim] if a < len(k.domain.sizes))) == "element":
        turn %= size
        if not turn:
            return _rolled(k, given, layout, rest)
        at, extent = k.index(layout[dim]), Extent(size)
        pieces = []
        for end, offset in ((turn, size - turn), (size, -turn)):
            here = within(k, shifted(at, offset), size)
            there = moved(layout, dim, k.there(extent, here))
            pieces.append((end, _rolled(k, given, there, rest)))
        return piecewise(k, at, pieces)
    # Once a row: the remainder by however many rows there are.
    at, like = k.index(layout[dim], fixed=False), layout[dim]
    if any(atom >= len(k.domain.sizes) for atom in like):
        like = ()
    build, number = k.build, k.number(at)
    count = build.count(like, "int64_t") if like else build.constant(size, "int64_t")
    back = build.op("sub", number, build.constant(turn, "int64_t"))
    rounds = build.op("mul", build.op("floor_int", back, count), count)
    wrapped = Index(build.op("sub", back, rounds))
    return _rolled(k, given, moved(layout, dim, k.there(Extent(size, like), wrapped)), rest)


@operator("roll", "self, shifts, dims=None", result_shape, moves=True)
def _roll(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    layout = k.layout(node.spec.shape, ())
    shifts, dims = (listed(arguments[name]) for name in ("shifts", "dims"))
    if len(dims) != len(shifts):
        raise Refused("a turn of all dimensions as one")
    turns = [(dim % len(layout), shift) for dim, shift in zip(dims, shifts, strict=True)]
    if len({dim for dim, _ in turns}) != len(turns):
        raise Refused("two turns of one dimension")
    return result_at(k, node, _rolled(k, arguments["self"], layout, turns), layout)


def listed(value: Any) -> list[int]:
    """One number or several, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


@operator("flip", "self, dims", result_shape, moves=True)
def _flip(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    layout = there = k.layout(node.spec.shape, ())
    for dim in {dim % len(layout) for dim in listed(arguments["dims"])}:
        size = node.spec.shape[dim]
        at = shifted(k.index(layout[dim]), size - 1, -1)
        there = moved(there, dim, k.there(Extent(size), at))
    return result_at(k, node, k.read(arguments["self"], there), layout)


@operator("repeat tile", "self, repeats", result_shape, moves=True)
def _repeat(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    given, layout = arguments["self"], k.layout(node.spec.shape, ())
    shape = k.shape(given)
    there = layout[len(layout) - len(shape) :]
    lead = len(layout) - len(shape)
    for dim, size in enumerate(shape):
        times = node.spec.shape[lead + dim] // size if size else 0
        if times == 1:
            continue
        if size == 1:
            there = moved(there, dim, ())
            continue
        at = k.number(k.index(there[dim]))
        wrapped = k.build.op("remainder_of", at, k.build.constant(size, "int64_t"))
        there = moved(there, dim, k.there(Extent(size), Index(wrapped)))
    return result_at(k, node, k.read(given, there), layout)


# Positions.


@operator("arange", "first, second=None, third=None, dtype=None, layout=None, device=None, "
          "pin_memory=None", result_shape, view=True, moves=True)  # fmt: skip
def _arange(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    first, second, third = (arguments[name] for name in ("first", "second", "third"))
    start, step = (0, 1) if second is None else (first, 1 if third is None else third)
    if not isinstance(start, int) or not isinstance(step, int) or "int" not in node.spec.dtype:
        raise Refused("a range of numbers that are not whole")
    layout = k.layout(node.spec.shape, ())
    value = k.number(k.index(layout[0]))
    if step != 1:
        value = k.build.op("mul", value, k.build.constant(step, "int64_t"))
    if start:
        value = k.build.op("add", value, k.build.constant(start, "int64_t"))
    return Tensor(value, layout, node.spec.dtype)


@operator("tril triu tril_ triu_", "self, diagonal=0", result_shape)
def _triangle(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    given, layout = arguments["self"], k.layout(node.spec.shape, ())
    if not isinstance(arguments["diagonal"], int):
        raise Refused("a diagonal that only the running op knows")
    lower = "tril" in node.target
    row, column = (k.number(k.index(layout[dim], fixed=False)) for dim in (-2, -1))
    last = arguments["diagonal"] + (1 if lower else 0)
    bound = k.build.op("add", row, k.build.constant(last, "int64_t"))
    below = k.build.op("lt", column, bound)
    value, kind = k.read(given, layout), value_type(node.spec.dtype)
    zero = k.build.constant(0, kind)
    pair = (value, zero) if lower else (zero, value)
    return result_at(k, node, k.chosen(below, *pair), layout)
