"""Where things lie: the runs of atoms that are walked together, and every tensor's offsets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from knowledge.loops.form import Extent, Loop, Operand
from knowledge.loops.spelling import sum_of

# By the name of a group: what one step along it is in a tensor that is read as it lies.
Spacing = Mapping[str, str]
# How a printer goes through rows. `tiles`: neighbouring rows, transposed into lanes. `turns`: each
# element of the innermost group has statements of its own, in a loop over the group before it.
Form = Literal["plain", "tiles", "turns"]


@dataclass(frozen=True)
class Group:
    """Neighbouring atoms that every tensor spans together: one loop, or one index."""

    name: str
    atoms: tuple[int, ...]


def groups_of(loop: Loop) -> tuple[tuple[Group, ...], tuple[Group, ...], tuple[Group, ...]]:
    """The outer, column and inner groups of a loop, outermost first."""

    def runs(name: str, atoms: tuple[int, ...]) -> tuple[Group, ...]:
        found: list[list[int]] = []
        for atom in atoms:
            if found and loop.together(found[-1][-1], atom):
                found[-1].append(atom)
            else:
                found.append([atom])
        if len(found) == 1:
            return (Group(name, tuple(found[0])),)
        return tuple(Group(f"{name}{n}", tuple(run)) for n, run in enumerate(found))

    domain = loop.domain
    return runs("rows", domain.outer), runs("cols", domain.columns), runs("inner", domain.inner)


def steps_of(loop: Loop, operand: Operand) -> tuple[Group, ...]:
    """The groups along which an operand that is read as it lies has a stride of its own.

    All that it spans but the innermost one, where that lies without gaps.
    """
    if not operand.strides:
        return ()
    groups = [group for part in groups_of(loop) for group in part]
    spanned = tuple(group for group in groups if group.atoms[0] in operand.atoms)
    return spanned[:-1] if operand.strides[-1] == 1 else spanned


class Indices:
    """How positions are written: pointers, sizes and offsets of every tensor, for one schedule."""

    def __init__(self, loop: Loop, form: Form = "plain") -> None:
        self.loop, self.form = loop, form
        self.outer, self.columns, self.inner = groups_of(loop)
        flat = not (self.outer or self.inner or loop.domain.structured or len(self.columns) > 1)
        self.flat = flat
        self.all = (*self.outer, *self.columns, *self.inner)
        if form == "tiles":
            self.outer, self.inner = self.outer[:-1], self.outer[-1:]
        self.lanes = bool(self.inner)
        # Which element of the innermost group has its turn.
        self.turn: int | None = None

    def index(self, group: Group) -> str:
        """The variable that counts along a group."""
        if len(self.outer) == 1 and group in self.outer:
            return "row"
        if len(self.columns) == 1 and group in self.columns:
            return "col"
        if self.turn is not None and group is self.columns[-1]:
            return str(self.turn)
        return group.name.replace("rows", "row").replace("cols", "col").replace("inner", "in")

    def _terms(
        self, atoms: tuple[int, ...], groups: tuple[Group, ...], spacing: Spacing | None = None
    ) -> list[str]:
        if spacing:
            return [
                f"{self.index(group)} * {spacing[group.name]}"
                if group.name in spacing
                else self.index(group)
                for group in groups
                if group.atoms[0] in atoms
            ]
        spanned = [group for group in self.all if group.atoms[0] in atoms]
        terms = []
        for position, group in enumerate(spanned):
            if group in groups:
                strides = [after.name for after in spanned[position + 1 :]]
                terms.append(" * ".join([self.index(group), *strides]))
        return terms

    def row_offset(self, atoms: tuple[int, ...], spacing: Spacing | None = None) -> str:
        """Where a row starts in a tensor."""
        terms = self._terms(atoms, self.outer, spacing)
        if self.flat:
            terms.append("start")
        elif len(self.inner) == 1 and self.inner[0].atoms[0] in atoms:
            terms.append(" * ".join(["first", *self.inner_step(atoms, spacing)]))
        return " + ".join(terms)

    def element_offset(self, atoms: tuple[int, ...], spacing: Spacing | None = None) -> str:
        """Where an element lies after its row's start."""
        terms = self._terms(atoms, self.columns, spacing)
        if len(self.inner) == 1 and self.inner[0].atoms[0] in atoms:
            terms.append(" * ".join(["lane", *self.inner_step(atoms, spacing)]))
        elif len(self.inner) > 1:
            terms += self._terms(atoms, self.inner, spacing)
        return " + ".join(terms) or "0"

    def inner_step(self, atoms: tuple[int, ...], spacing: Spacing | None = None) -> list[str]:
        """The factors of a step along the only inner group: none, but in tiles a row's length."""
        (group,) = self.inner
        if spacing:
            return [spacing[group.name]] if group.name in spacing else []
        after = self.all[self.all.index(group) + 1 :]
        return [one.name for one in after if one.atoms[0] in atoms]

    def in_tile(self, atoms: tuple[int, ...]) -> bool:
        """Whether a tensor over these atoms is read and written through a tile."""
        if self.form != "tiles":
            return False
        columns = any(group.atoms[0] in atoms for group in self.columns)
        return columns and self.inner[0].atoms[0] in atoms

    def tile_place(self, atoms: tuple[int, ...]) -> str:
        """The current element's place in the tile of a tensor over these atoms."""
        own = tuple(atom for atom in atoms if atom in self.loop.domain.columns)
        return f"({sum_of(self._terms(own, self.columns))}) * LANES + lane"

    def tile_columns(self, atoms: tuple[int, ...]) -> str:
        """How many elements of a row a tensor over these atoms has."""
        return " * ".join(group.name for group in self.columns if group.atoms[0] in atoms)

    def column(self) -> str:
        """The position within the row, counted from 0."""
        terms = []
        for position, group in enumerate(self.columns):
            strides = [after.name for after in self.columns[position + 1 :]]
            terms.append(" * ".join([self.index(group), *strides]))
        return " + ".join(terms) or "0"

    def place(self, group: Group) -> str:
        """The index along a group, counted from the group's own beginning."""
        if self.flat:
            return f"(start + {self.index(group)})"
        if self.lanes and group in self.inner and len(self.inner) == 1:
            return "(first + lane)"
        return self.index(group)

    def position(self, atoms: tuple[int, ...]) -> str:
        """The index that counts through some atoms."""
        spanned = [group for group in self.all if group.atoms[0] in atoms]
        terms = []
        for position, group in enumerate(spanned):
            strides = [after.name for after in spanned[position + 1 :]]
            terms.append(" * ".join([self.place(group), *strides]))
        return sum_of(terms)

    def units(self, operand: Operand) -> list[tuple["Group | int", list[str]]]:
        """What an operand with extents is addressed by: groups, or an extent's number.

        Each with the sizes, as expressions, that its index is multiplied with.
        """
        found: list[Group | int] = []
        for atom in operand.atoms:
            unit = -1 - atom if atom < 0 else self._group_of(atom)
            if not found or found[-1] != unit or atom < 0:
                found.append(unit)
        sizes = [
            self.length(operand.extents[unit]) if isinstance(unit, int) else unit.name
            for unit in found
        ]
        return [(unit, sizes[place + 1 :]) for place, unit in enumerate(found)]

    def _group_of(self, atom: int) -> Group:
        return next(group for group in self.all if atom in group.atoms)

    def length(self, extent: Extent) -> str:
        """The length of an extent."""
        if not extent.like:
            return str(extent.size)
        groups = [group.name for group in self.all if group.atoms[0] in extent.like]
        return " * ".join(groups) or "1"

    def unravelled(self, groups: tuple[Group, ...], flat: str) -> list[str]:
        """The indices of several groups from the one that counts through all of them."""
        lines = []
        for position, group in enumerate(groups):
            after = [one.name for one in groups[position + 1 :]]
            divided = f"{flat} / ({' * '.join(after)})" if after else flat
            wrapped = f"{divided} % {group.name}" if position else divided
            lines.append(f"const int64_t {self.index(group)} = {wrapped};")
        return lines
