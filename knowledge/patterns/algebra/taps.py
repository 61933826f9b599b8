"""Sums of an image over what each tap of a window meets of it, as calls in a graph."""

from dataclasses import dataclass

from knowledge.opgraph import Argument, Ref
from knowledge.patterns.algebra.edit import Writer
from knowledge.patterns.algebra.terms import plus

TO_THE_END = (1 << 63) - 1


@dataclass(frozen=True)
class Range:
    """Elements first, first + step, ... below last, along one dimension."""

    first: int
    last: int
    step: int = 1

    @property
    def count(self) -> int:
        """How many there are."""
        return max(0, -(-(self.last - self.first) // self.step))


def conv_range(size: int, made: int, stride: int, offset: int) -> Range:
    """What a tap of a convolution meets: elements  o stride - offset  of `size`, o < made.

    `offset` is the padding, less the tap's distance from the window's start.
    """
    low = max(0, -(-offset // stride))
    high = min(made - 1, (size - 1 + offset) // stride)
    if high < low:
        return Range(0, 0, 1)
    return Range(low * stride - offset, high * stride - offset + 1, stride)


def transposed_range(size: int, made: int, stride: int, offset: int) -> Range:
    """The same of a transposed one: elements i of `size` with  0 <= i stride - offset < made."""
    low = max(0, -(-offset // stride))
    high = min(size - 1, (made - 1 + offset) // stride)
    return Range(low, high + 1) if high >= low else Range(0, 0)


def tap_sums(w: Writer, x: Ref, ranges: list[list[Range]]) -> Ref:
    """(batch, channels, taps of each dimension): x summed over what each tap meets.

    Args:
        w: takes the calls.
        x: (batch, channels, spatial dimensions).
        ranges: for each spatial dimension one for every tap.
    """
    sizes = w.spec(x).shape[2:]
    whole = [
        at
        for at, taps in enumerate(ranges)
        if all(one.count == size and one.step == 1 for one in taps for size in [sizes[at]])
    ]
    result = _total(w, x, [at - len(sizes) for at in whole]) if whole else x
    # From the outermost dimension inwards: its borders lie together in memory.
    for at, taps in enumerate(ranges):
        dim = at - len(sizes)
        parts = [result] * len(taps) if at in whole else _parts(w, result, dim, taps)
        result = _joined(w, parts, dim)
    return result


def _parts(w: Writer, x: Ref, dim: int, taps: list[Range]) -> list[Ref]:
    """For each tap the sum over its range of one dimension, which is kept.

    What all ranges have in common is summed once.
    """
    low, high = max(one.first for one in taps), min(one.last for one in taps)
    shared = all(one.step == 1 for one in taps) and high - low > w.spec(x).shape[dim] // 2
    core = _total(w, _slice(w, x, dim, Range(low, high)), [dim]) if shared else None
    chosen: list[Ref] = []
    made: dict[tuple[Range, ...], Ref] = {}
    for one in taps:
        around = (Range(one.first, low), Range(high, one.last))
        pieces = (one,) if core is None else tuple(piece for piece in around if piece.count)
        for end in range(1, len(pieces) + 1):
            if pieces[:end] not in made:
                more = _total(w, _slice(w, x, dim, pieces[end - 1]), [dim])
                before = core if end == 1 else made[pieces[: end - 1]]
                made[pieces[:end]] = more if before is None else plus(w, before, more)
        if core is not None and not pieces:
            made[pieces] = core
        chosen.append(made[pieces])
    return chosen


def _slice(w: Writer, x: Ref, dim: int, part: Range) -> Ref:
    """The range as a view. Dimensions are counted from the end: none is mistaken for a size."""
    spec = w.spec(x)
    size = spec.shape[dim]
    if part.count == size and part.step == 1:
        return x
    shape = [*spec.shape]
    shape[dim] = part.count
    last = TO_THE_END if part.last >= size else part.last - size
    args: tuple[Argument, ...] = (x, dim, part.first, last, part.step)
    if part.count == 0:
        args = (x, dim, 0, 0)
    return w.call("aten.slice.Tensor", args, shape, spec.dtype)


def _total(w: Writer, x: Ref, dims: list[int]) -> Ref:
    """The sum over some dimensions, which are kept."""
    spec = w.spec(x)
    shape = [*spec.shape]
    dims = [dim for dim in dims if shape[dim] != 1]
    for dim in dims:
        shape[dim] = 1
    if not dims:
        return x
    return w.call("aten.sum.dim_IntList", (x, [*dims], True), shape, spec.dtype)


def _joined(w: Writer, parts: list[Ref], dim: int) -> Ref:
    if len(parts) == 1:
        return parts[0]
    spec = w.spec(parts[0])
    shape = [*spec.shape]
    shape[dim] = len(parts)
    return w.call("aten.cat.default", ([*parts], dim), shape, spec.dtype)
