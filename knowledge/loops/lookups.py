"""Operators that read rows or elements by an index from a tensor: embedding, gather and their kin.

An index out of range is never read: element 0 is read in its place, and the loop's complaint, one
number more that it writes, makes the caller raise IndexError.
"""

from math import prod
from typing import Any

from knowledge.loops.form import Extent, Refused, value_type
from knowledge.loops.lower import Lowering
from knowledge.loops.movement import moved, result_at
from knowledge.loops.operators import (
    Arguments,
    External,
    Given,
    Tensor,
    Work,
    operator,
    result_shape,
)
from knowledge.loops.places import Index
from knowledge.loops.shapes import Layout, broadcast
from knowledge.opgraph import Node

WHOLE = ("int64", "int32", "int16", "int8", "uint8")


def _dtype(given: Given) -> str:
    return given.dtype if isinstance(given, Tensor) else given.spec.dtype


def _looked_up(
    k: Lowering, node: Node, index: Given, layout: Layout, size: int, wraps: bool = False
) -> tuple[int, ...]:
    """A dimension of so many elements at the index that a tensor holds; `wraps`: -1 is the last."""
    if not isinstance(index, Tensor | External) or _dtype(index) not in ("int64", "int32"):
        raise Refused("an index that is not a tensor of whole numbers")
    if size == 0:
        raise Refused("an index into nothing")
    build = k.build
    number = k.at(index, layout)
    value = build.values[number]
    known = value.op == "position" and 0 < build.domain.count(value.atoms) <= size
    if known and set(value.atoms) <= build.fixed:
        return k.there(Extent(size), Index(number))
    if wraps:
        back = build.op("add", number, build.constant(size, "int64_t"))
        negative = build.op("lt", number, build.constant(0, "int64_t"))
        number = build.op("where", negative, back, number)
    complaint = f"{node.name}: an index is out of range for a dimension of {size}"
    return k.there(Extent(size), Index(build.in_range(number, size, complaint)))


def _same(value: int, layout: Layout, node: Node) -> Tensor:
    return Tensor(value, layout, node.spec.dtype)


@operator("embedding", "weight, indices, padding_idx=-1, scale=False, sparse=False", result_shape,
          moves=True)  # fmt: skip
def _embedding(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    weight, layout = arguments["weight"], k.layout(node.spec.shape, ())
    size = k.shape(weight)[0]
    row = _looked_up(k, node, arguments["indices"], layout[:-1], size)
    return _same(k.read(weight, (row, layout[-1])), layout, node)


@operator("index_select", "self, dim, index", result_shape, moves=True)
def _index_select(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    given, layout = arguments["self"], k.layout(node.spec.shape, ())
    dim = arguments["dim"] % len(layout)
    there = _looked_up(k, node, arguments["index"], (layout[dim],), k.shape(given)[dim])
    return _same(k.read(given, moved(layout, dim, there)), layout, node)


@operator("gather", "self, dim, index, sparse_grad=False", result_shape, moves=True)
def _gather(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    given, layout = arguments["self"], k.layout(node.spec.shape, ())
    shape = k.shape(given)
    dim = arguments["dim"] % len(layout)
    there = layout
    for other, size in enumerate(shape):
        if other != dim and size != node.spec.shape[other]:
            at = k.index(layout[other])
            there = moved(there, other, k.there(Extent(size), at))
    row = _looked_up(k, node, arguments["index"], layout, shape[dim])
    return _same(k.read(given, moved(there, dim, row)), layout, node)


@operator("take_along_dim", "self, indices, dim=None", result_shape, moves=True)
def _take_along(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    given, layout, dim = arguments["self"], k.layout(node.spec.shape, ()), arguments["dim"]
    if dim is None:
        raise Refused("elements of a tensor as if it had one dimension")
    shape = k.shape(given)
    dim %= len(layout)
    there = tuple(() if size == 1 else atoms for size, atoms in zip(shape, layout, strict=True))
    index = arguments["indices"]
    if _dtype(index) != "int64" or not shape[dim]:
        raise Refused("an index that is not a tensor of whole numbers")
    # torch takes the remainder, so that no index is out of range.
    number, size = k.at(index, layout), k.build.constant(shape[dim], "int64_t")
    turns = k.build.op("mul", k.build.op("floor_int", number, size), size)
    row = k.there(Extent(shape[dim]), Index(k.build.op("sub", number, turns)))
    return _same(k.read(given, moved(there, dim, row)), layout, node)


def _index_work(node: Node, arguments: Arguments) -> Work:
    if not isinstance(arguments["indices"], list):
        raise Refused("an index that is not a list")
    return Work(node.spec.shape)


@operator("index", "self, indices", _index_work, moves=True)
def _index(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    given, layout = arguments["self"], k.layout(node.spec.shape, ())
    shape, indices = k.shape(given), _indices(arguments["indices"])
    dims = sorted(indices)
    common = broadcast([k.shape(index) for index in indices.values()])
    together = dims[-1] - dims[0] == len(dims) - 1
    first = dims[0] if together else 0
    at = layout[first : first + len(common)]
    rest = [*layout[:first], *layout[first + len(common) :]]
    there = []
    for dim, size in enumerate(shape):
        if dim in indices:
            there.append(_looked_up(k, node, indices[dim], at, size, wraps=True))
        else:
            there.append(rest.pop(0))
    return _same(k.read(given, tuple(there)), layout, node)


def _indices(given: list[Any]) -> dict[int, Given]:
    found = {dim: one for dim, one in enumerate(given) if one is not None}
    if not found:
        raise Refused("an index of nothing")
    if any(_dtype(one) not in ("int64", "int32") for one in found.values()):
        raise Refused("an index by truth values")
    return found


@operator("index_put", "self, indices, values, accumulate=False", result_shape)
def _index_put(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    """One number written where a mask over neighbouring dimensions says."""
    given, indices = arguments["self"], arguments["indices"]
    masks = [one for one in indices if one is not None]
    number = arguments["values"]
    if len(masks) != 1 or arguments["accumulate"] or prod(k.shape(number)) != 1:
        raise Refused("several numbers are written by an index")
    (mask,) = masks
    if _dtype(mask) != "bool":
        raise Refused("a number is written by an index")
    layout, kind = k.layout(node.spec.shape, (given,)), value_type(node.spec.dtype)
    first = indices.index(mask)
    chosen = k.read(mask, layout[first : first + len(k.shape(mask))])
    value = k.build.cast(k.at(number, layout), kind)
    return result_at(k, node, k.chosen(chosen, value, k.read(given, layout)), layout)
