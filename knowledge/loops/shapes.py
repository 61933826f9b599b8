"""How tensors of different shapes lie on one index space: which of its atoms a dimension spans."""

from itertools import pairwise
from math import prod
from typing import Protocol

from knowledge.loops.form import Refused

Layout = tuple[tuple[int, ...], ...]


class Sizes(Protocol):
    """The size of each atom."""

    def __getitem__(self, atom: int, /) -> int:
        """The size of one atom."""


def refine(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The sizes, outermost first, of the coarsest index space of which every shape is a grouping.

    The shapes have the same number of elements. (8, 36) and (8, 4, 9) make (8, 4, 9); sizes of 1
    vanish.

    Raises:
        Refused: the shapes cut the elements at places that don't nest, such as (4, 6) and (6, 4).
    """
    cuts = {1}
    for shape in shapes:
        running = 1
        for size in reversed(shape):
            running *= size
            cuts.add(running)
    ordered = sorted(cuts)
    for small, large in pairwise(ordered):
        if large % small:
            raise Refused(f"shapes {', '.join(map(str, shapes))} don't nest in one another")
    return tuple(large // small for small, large in pairwise(ordered))[::-1]


def partition(shape: tuple[int, ...], atoms: tuple[int, ...], sizes: Sizes) -> Layout | None:
    """Deal the atoms out to the dimensions of a shape, in order; None where that is uneven."""
    waiting = list(atoms)
    layout: list[tuple[int, ...]] = []
    for size in shape:
        taken: list[int] = []
        while prod(sizes[atom] for atom in taken) < size and waiting:
            taken.append(waiting.pop(0))
        if prod(sizes[atom] for atom in taken) != size:
            return None
        layout.append(tuple(taken))
    return None if waiting else tuple(layout)


def spanned(layout: Layout) -> tuple[int, ...]:
    """The atoms of a layout, in order."""
    return tuple(atom for dim in layout for atom in dim)


def fits(layout: Layout, target: Layout) -> bool:
    """Whether one layout broadcasts to another, by torch's rule: aligned at the last dimension."""
    if len(layout) > len(target):
        return False
    aligned = target[len(target) - len(layout) :]
    return all(mine in ((), theirs) for mine, theirs in zip(layout, aligned, strict=True))


def broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that these broadcast to, by torch's rules; they are known to be compatible."""
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(column) for column in zip(*padded, strict=True))
