"""Padding: what lies around a tensor is a number, or the tensor itself, mirrored or repeated."""

from collections.abc import Callable

from knowledge.loops.form import Extent, Refused, value_type
from knowledge.loops.lower import Lowering
from knowledge.loops.movement import listed, moved, piecewise, result_at, shifted, within
from knowledge.loops.operators import Arguments, Given, Tensor, Work, operator, result_shape
from knowledge.loops.places import Index
from knowledge.loops.shapes import Layout
from knowledge.opgraph import Node


def _padded(
    k: Lowering, given: Given, layout: Layout, pads: list[tuple[int, int, int]], mode: str,
    filler: int,
) -> int:  # fmt: skip
    """An argument with so much before and after some dimensions: (dim, before, after)."""
    if not pads:
        return k.read(given, layout)
    (dim, before, after), rest = pads[0], pads[1:]
    size = k.shape(given)[dim]
    if before < 0 or after < 0 or not size:
        raise Refused("padding that takes away, or of nothing")
    at = k.index(layout[dim])

    def inside(index: Index) -> int:
        there = moved(layout, dim, k.there(Extent(size), within(k, index, size)))
        return _padded(k, given, there, rest, mode, filler)

    low, high = filler, filler
    if mode == "reflect":
        low, high = inside(shifted(at, before, -1)), inside(shifted(at, 2 * size - 2 + before, -1))
    elif mode == "replicate":
        first = Index(k.build.constant(0, "int64_t"))
        low, high = inside(first), inside(shifted(first, size - 1))
    elif mode == "circular":
        low, high = inside(shifted(at, size - before)), inside(shifted(at, -size - before))
    pieces = [(before, low)] if before else []
    pieces.append((before + size, inside(shifted(at, -before))))
    pieces += [(before + size + after, high)] if after else []
    return piecewise(k, at, pieces)


def _pad_work(node: Node, arguments: Arguments) -> Work:
    mode = arguments.get("mode", "constant")
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise Refused(f"padding of the kind {mode}")
    return Work(node.spec.shape)


def _pad(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    layout, given = k.layout(node.spec.shape, ()), arguments["self"]
    pad, mode = listed(arguments["pad"]), arguments.get("mode", "constant")
    rank, number = len(layout), arguments["value"] or 0
    if not isinstance(number, bool | int | float) or not all(isinstance(p, int) for p in pad):
        raise Refused("padding that only the running op knows")
    pads = [
        (rank - 1 - place, pad[2 * place], pad[2 * place + 1])
        for place in range(len(pad) // 2)
        if pad[2 * place] or pad[2 * place + 1]
    ]
    filler = k.build.constant(number, value_type(node.spec.dtype))
    return result_at(k, node, _padded(k, given, layout, pads, mode, filler), layout)


operator("constant_pad_nd", "self, pad, value=0", _pad_work, moves=True)(_pad)
operator("pad", "self, pad, mode='constant', value=None", _pad_work, moves=True)(_pad)


def _fixed_pad(mode: str) -> Callable[[Lowering, Node, Arguments], Tensor]:
    def lower(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
        return _pad(k, node, {**arguments, "mode": mode, "value": None})

    return lower


operator("reflection_pad1d reflection_pad2d reflection_pad3d", "self, pad", result_shape,
         moves=True)(_fixed_pad("reflect"))  # fmt: skip
operator("replication_pad1d replication_pad2d replication_pad3d", "self, pad", result_shape,
         moves=True)(_fixed_pad("replicate"))  # fmt: skip
