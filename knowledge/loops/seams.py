"""Seams: where a loop goes on to another tensor, and so is cut, rather than choosing each time.

Along the innermost loop a seam ends one vector loop and begins the next; between rows, each side of
it gets statements of its own.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from knowledge.loops.form import Loop
from knowledge.loops.indices import Indices
from knowledge.loops.values import Values

# More parts than these make more code than they save.
MOST_SEAMS, MOST_CASES = 8, 6


@dataclass(frozen=True)
class Part:
    """A part of the innermost loop: its bounds as C++ ("" for the loop's own), what holds in it.

    `cut` are the innermost atoms, where the loop is cut at all of their seams.
    """

    begin: str = ""
    end: str = ""
    assumed: dict[int, bool] = field(default_factory=dict)
    cut: tuple[int, ...] = ()
    whole: bool = True


def choices(loop: Loop) -> set[int]:
    """The conditions by which values are chosen."""
    return {value.args[0] for value in loop.values if value.op == "where"}


def _followed(loop: Loop, number: int) -> tuple[int, ...]:
    """The atoms of the position that a condition compares, or none."""
    value = loop.values[number]
    if value.op != "lt" or loop.values[value.args[0]].op != "position":
        return ()
    return loop.values[value.args[0]].atoms


def seams_of(loop: Loop, at: Indices, made: Values) -> list[Part]:
    """The parts of the innermost loop."""
    innermost = at.columns[-1].atoms if at.columns else ()
    conditions = [n for n in sorted(choices(loop)) if innermost and _followed(loop, n) == innermost]
    if not conditions or at.lanes:
        return [Part()]
    bounds = {number: loop.values[number].args[1] for number in conditions}
    fixed = {n: int(loop.values[b].number) for n, b in bounds.items()
             if loop.values[b].op == "constant"}  # fmt: skip
    if len(fixed) < len(bounds):
        return _at_one_seam(loop, at, made, bounds)
    size = loop.domain.count(innermost)
    seams = sorted({seam for seam in fixed.values() if 0 < seam < size})
    if len(seams) > MOST_SEAMS:
        return [Part()]
    ends = [0, *seams, size]
    texts = ["", *(_spelled(loop, at, seam) for seam in seams), ""]
    return [
        Part(texts[place], texts[place + 1], {n: low < seam for n, seam in fixed.items()},
             innermost, not seams)
        for place, (low, _) in enumerate(pairwise(ends))
    ]  # fmt: skip


def turns_of(loop: Loop, at: Indices) -> list[Part]:
    """Each element of the innermost group, with what holds there."""
    innermost = at.columns[-1].atoms
    found = {n: loop.values[n].args[1] for n in choices(loop) if _followed(loop, n) == innermost}
    seams = {n: loop.values[b].number for n, b in found.items()
             if loop.values[b].op == "constant"}  # fmt: skip
    cut = innermost if len(seams) == len(found) else ()
    return [
        Part(assumed={n: turn < seam for n, seam in seams.items()}, cut=cut)
        for turn in range(loop.domain.count(innermost))
    ]


def _spelled(loop: Loop, at: Indices, seam: int) -> str:
    """A seam as a bound of the innermost loop, which in chunks counts from the chunk's start."""
    if at.flat:
        return f"inside({seam} - start, count)"
    group = at.columns[-1]
    return str(seam) if set(group.atoms) <= loop.fixed else f"inside({seam}, {group.name})"


def _at_one_seam(loop: Loop, at: Indices, made: Values, bounds: dict[int, int]) -> list[Part]:
    """Two parts at a seam that differs from row to row; one where there are several such."""
    (first, *others) = set(bounds.values())
    if others or at.flat or loop.values[first].stage not in ("unit", "row"):
        return [Part()]
    group = at.columns[-1]
    seam = f"inside({made.use(first, 'row')}, {group.name})"
    return [
        Part("", seam, dict.fromkeys(bounds, True), group.atoms, whole=False),
        Part(seam, "", dict.fromkeys(bounds, False), group.atoms, whole=False),
    ]


def row_conditions(loop: Loop, at: Indices) -> list[int]:
    """Conditions on a row's position by which elements are chosen, lowest seam first.

    None where they don't follow one position, or are too many.
    """
    if at.lanes:
        return []
    found = []
    for number in sorted(choices(loop)):
        position, bound = loop.values[number].args[:1], loop.values[number].args[1:]
        atoms = _followed(loop, number)
        rows = bool(atoms) and set(atoms) <= set(loop.domain.outer)
        chooses = any(
            value.op == "where" and value.args[0] == number and value.stage == "element"
            for value in loop.values
        )
        if rows and chooses and position and loop.values[bound[0]].op == "constant":
            found.append(number)
    if len({loop.values[n].args[0] for n in found}) > 1 or len(found) >= MOST_CASES:
        return []
    return sorted(found, key=lambda n: loop.values[loop.values[n].args[1]].number)


def cases_of(loop: Loop, conditions: list[int]) -> list[dict[int, bool]]:
    """What holds in each case of ascending conditions on one position."""
    return [
        {number: place >= case for place, number in enumerate(conditions)}
        for case in range(len(conditions) + 1)
    ]
