"""Tiles: which part of the index space one Triton program holds at a time, and where it lies.

A tile is `flat` (a run of elements), `row` (one row), `rows` (several short ones, `[ROWS, BLOCK]`)
or `lanes` (neighbouring rows of a reduction that is not innermost, `[BLOCK, LANES]`). A row that is
too long for one block is walked in several (`looped`), or spread over programs where nothing is
reduced along it.
"""

import re
from dataclasses import dataclass
from typing import Literal

from knowledge.loops.form import Loop
from knowledge.loops.indices import Group, Indices, Spacing
from knowledge.loops.plan import Plan

Kind = Literal["flat", "row", "rows", "lanes"]

FLAT_BLOCK = 1024
# The longest row that stays in registers from one level to the next: compiled for sm_90, softmax,
# layer norm and cross-entropy of 32,000 columns take at most 64 registers in 32 warps and spill
# nothing, those of 60,000 spill 200 to 480 bytes. With weights, or a GELU before the norm, 32,768
# columns spill 8 to 88 bytes a thread, which is less than a row of 128 KiB and more read again.
LONGEST_BLOCK = 32768
# What is read only once needs no more than keeps enough loads under way.
LONGEST_ONCE = 8192
LOOP_BLOCK = 4096
SPREAD_FROM = 2048
LANES = 64
LANES_TILE = 8192
# A tile that grew with its rows, at run time: with more elements it compiles for minutes, and from
# 2^20 on not at all.
MOST_ELEMENTS = 1 << 17
# Some room is left below 2^31, for the block that reaches past the end.
WIDE = 2**31 - 2**20
ELEMENTS_PER_WARP = 512


def power_of_two(number: int) -> int:
    """The next power of two: Triton's blocks have no other sizes."""
    return 1 << max(number - 1, 0).bit_length()


@dataclass(frozen=True)
class Wish:
    """Tunables of a tile; 0 leaves the choice to the sizes. `block` and `rows` are powers of two.

    `block`: columns at a time. `rows`: rows, or lanes, a program. `warps`: of a program.
    """

    block: int = 0
    rows: int = 0
    warps: int = 0


@dataclass(frozen=True)
class Shape:
    """A tile's kind and sizes; `fits` says that BLOCK follows the row's length at run time."""

    kind: Kind
    block: int
    rows: int
    warps: int
    looped: bool = False
    spread: bool = False

    @property
    def fits(self) -> bool:
        """Whether one block holds a whole row."""
        return self.kind != "flat" and not self.looped and not self.spread


def choose(loop: Loop, at: Indices, plan: Plan, wish: Wish) -> Shape:
    """The tile for a loop at its traced sizes."""
    columns = loop.domain.count(loop.domain.columns)
    if at.flat:
        block = wish.block or FLAT_BLOCK
        return Shape("flat", block, 1, wish.warps or _warps(block))
    whole = power_of_two(columns)
    if at.lanes:
        return _lanes(whole, power_of_two(loop.domain.count(loop.domain.inner)), plan, wish)
    spread = not loop.domain.structured and not plan.totals
    longest = LONGEST_BLOCK if plan.levels > 1 else LONGEST_ONCE
    longest = SPREAD_FROM if spread else longest
    if whole > (wish.block or longest):
        block = wish.block or (FLAT_BLOCK if spread else LOOP_BLOCK)
        return Shape("row", block, 1, wish.warps or _warps(block), not spread, spread)
    rows = wish.rows or max(1, FLAT_BLOCK // whole)
    rows = min(rows, power_of_two(loop.domain.count(loop.domain.outer)))
    warps = wish.warps or _warps(whole * rows)
    return Shape("rows" if rows > 1 else "row", whole, rows, warps)


def _lanes(whole: int, inner: int, plan: Plan, wish: Wish) -> Shape:
    """A whole row in the tile where a later sweep reads it again and it fits; else a part of it."""
    lanes = min(wish.rows or LANES, inner)
    if plan.levels > 1 and not wish.rows and not wish.block:
        while lanes > 16 and whole * lanes > LANES_TILE:
            lanes //= 2
        if whole * lanes > LANES_TILE:
            lanes = min(LANES, inner)
    largest = LANES_TILE if plan.levels > 1 else LANES_TILE // 2
    block = min(whole, wish.block or max(1, largest // lanes))
    return Shape("lanes", block, lanes, wish.warps or _warps(block * lanes), block < whole)


def _warps(elements: int) -> int:
    return min(32, max(4, power_of_two(elements // ELEMENTS_PER_WARP)))


@dataclass(frozen=True)
class Place:
    """Where elements are evaluated: the column's name, the mask, and a suffix for their names."""

    column: str = "col"
    mask: str = ""
    suffix: str = ""


class Tile:
    """Offsets, masks and index lines of one loop under one shape."""

    def __init__(self, loop: Loop, at: Indices, shape: Shape) -> None:
        self.loop, self.at, self.shape = loop, at, shape
        self.flat = shape.kind in ("flat", "row")
        self.axis = 1 if shape.kind == "rows" else 0
        # Whether positions along columns, or along lanes, fit into 32 bits at the traced sizes.
        self.wide_columns = loop.domain.count(loop.domain.columns) >= WIDE
        self.wide_inner = loop.domain.count(loop.domain.inner) >= WIDE
        self.columns = _product(at.columns, self.wide_columns)
        self.outer, self.inner = _product(at.outer, True), _product(at.inner, self.wide_inner)

    @property
    def longest(self) -> int:
        """The most columns that the tile takes when it runs; 0 for any number."""
        if self.shape.fits:
            return MOST_ELEMENTS // self.shape.rows
        return 0 if self.shape.kind == "flat" or self.wide_columns else WIDE

    @property
    def full(self) -> str:
        """The shape of a tile of elements, as text."""
        sizes = {"rows": "(ROWS, BLOCK)", "lanes": "(BLOCK, LANES)"}
        return sizes.get(self.shape.kind, "(BLOCK,)")

    @property
    def side(self) -> str:
        """The shape of what there is once a row."""
        return {"rows": "(ROWS, 1)", "lanes": "(1, LANES)"}.get(self.shape.kind, "()")

    def offset(self, atoms: tuple[int, ...], place: Place, spacing: Spacing | None = None) -> str:
        """Where the elements of a tensor lie that spans these atoms; "" for its first.

        With `spacing` it is read as it lies: that has what a step along a group is, where not 1.
        """
        spanned = [group for group in self.at.all if group.atoms[0] in atoms]
        if spacing:
            return " + ".join(self._step(group, place, spacing) for group in spanned)
        parts = (
            (self.at.outer, "row", ""),
            (self.at.columns, place.column, place.suffix),
            (self.at.inner, "lane", ""),
        )
        terms: list[str] = []
        for groups, whole, suffix in parts:
            mine = [group for group in groups if group in spanned]
            # What spans all of a part is walked by its one index: neighbours stay neighbours.
            units = [(mine[-1], whole)] if mine and len(mine) == len(groups) else []
            for group, name in units or [(g, self._index(g) + suffix) for g in mine]:
                after = [one.name for one in spanned[spanned.index(group) + 1 :]]
                terms.append(" * ".join([name, *after]))
        return " + ".join(terms)

    def position(self, atoms: tuple[int, ...], place: Place) -> str:
        """The index that counts through some atoms."""
        spanned = [group for group in self.at.all if group.atoms[0] in atoms]
        terms = []
        for number, group in enumerate(spanned):
            after = (one.name for one in spanned[number + 1 :])
            terms.append(" * ".join([self._alone(group, place), *after]))
        return " + ".join(terms) or "0"

    def _alone(self, group: Group, place: Place) -> str:
        """The index along one group."""
        parts = (
            (self.at.outer, "row", ""),
            (self.at.columns, place.column, place.suffix),
            (self.at.inner, "lane", ""),
        )
        whole, name, suffix = next(part for part in parts if group in part[0])
        return name if len(whole) == 1 else self._index(group) + suffix

    def _step(self, group: Group, place: Place, spacing: Spacing) -> str:
        index = self._alone(group, place)
        if group.name not in spacing:
            return index
        # Rows are counted in 64 bits, and the steps of a large tensor may need them too.
        wide = index if group in self.at.outer else f"tl.cast({index}, tl.int64)"
        return f"{wide} * {spacing[group.name]}"

    def mask(self, atoms: tuple[int, ...], element: bool, place: Place) -> str:
        """The name of the mask for a tensor that spans these atoms; "" where there is none."""
        outside = self.loop.domain.inner if self.at.lanes else self.loop.domain.outer
        by_row = bool(set(atoms) & set(outside))
        if not element:
            return "in_row" if by_row and not self.flat else ""
        if place.mask:
            return place.mask
        return "inside" if self.flat or by_row else "in_col"

    def whole_mask(self, element: bool) -> str:
        """The mask of the whole tile, or of its rows; "" where every row is there."""
        return "inside" if element else "" if self.flat else "in_row"

    def row_lines(self, task: str, text: str) -> list[str]:
        """Lines that find the rows of a task, as far as `text` needs them."""
        found: list[tuple[str, str]] = []
        if self.shape.spread:
            # One flat grid: no other dimension of it takes more than 65,535.
            found += [
                ("across", f"tl.cdiv({self.columns}, BLOCK)"),
                ("row", f"({task} // across).to(tl.int64)"),
            ]
        elif self.shape.kind == "row":
            found.append(("row", f"{task}.to(tl.int64)"))
        elif self.shape.kind == "rows":
            index = f"{task}.to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]"
            found += [("row", index), ("in_row", f"row < {self.outer}")]
        elif self.shape.kind == "lanes":
            found += [
                ("strips", f"tl.cdiv({self.inner}, LANES)"),
                ("row", f"({task} // strips).to(tl.int64)"),
                ("lane", f"{task} % strips * LANES + tl.arange(0, LANES)[None, :]"),
                ("in_row", f"lane < {self.inner}"),
            ]
        found += self._unravelled(self.at.outer, "row", wide=True)
        found += self._unravelled(self.at.inner, "lane", wide=self.wide_inner)
        return needed(found, text)

    def column_lines(self, task: str, text: str) -> list[str]:
        """Lines that find the columns of a block, as far as `text` needs them."""
        side = {"rows": "[None, :]", "lanes": "[:, None]"}.get(self.shape.kind, "")
        first = ""
        if self.shape.kind == "flat":
            first = f"{task}.to(tl.int64) * BLOCK + "
        elif self.shape.spread:
            first = f"{task} % across * BLOCK + "
        elif self.shape.looped:
            first = "start + "
        col = f"{first}tl.arange(0, BLOCK){side}"
        # Among lanes a column is multiplied by a stride, and the product may not fit into 32 bits.
        wide = self.shape.kind == "lanes" or (self.wide_columns and not self.flat)
        if self.wide_columns and self.shape.spread:
            col = f"({task} % across).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)"
        found = [("col", f"({col}).to(tl.int64)" if wide else col)]
        if self.flat:
            found.append(("inside", f"col < {self.columns}"))
        else:
            found += [("in_col", f"col < {self.columns}"), ("inside", "in_row & in_col")]
        found += self._unravelled(self.at.columns, "col", wide=self.wide_columns)
        return needed(found, text)

    def label_lines(self, place: Place, text: str) -> list[str]:
        """Lines that split a column of its own into the indices that `text` needs."""
        wide = self.wide_columns
        found = self._unravelled(self.at.columns, place.column, place.suffix, wide)
        return needed(found, text)

    def _index(self, group: Group) -> str:
        return (
            "lane" if group in self.at.inner and len(self.at.inner) == 1 else self.at.index(group)
        )

    def _unravelled(
        self, groups: tuple[Group, ...], flat: str, suffix: str = "", wide: bool = False
    ) -> list[tuple[str, str]]:
        if len(groups) < 2:
            return []
        found = []
        for position, group in enumerate(groups):
            after = _product(groups[position + 1 :], wide)
            divisor = f"({after})" if " " in after else after
            divided = f"{flat} // {divisor}" if after != "1" else flat
            wrapped = f"{divided} % {group.name}" if position else divided
            found.append((self._index(group) + suffix, wrapped))
        return found


def _product(groups: tuple[Group, ...], wide: bool) -> str:
    """A product of sizes, which come as 32 bits: in 64 where `wide` says so."""
    names = [group.name for group in groups]
    if wide and len(names) > 1:
        names[0] = f"tl.cast({names[0]}, tl.int64)"
    return " * ".join(names) or "1"


def needed(definitions: list[tuple[str, str]], text: str) -> list[str]:
    """The definitions that a text uses, directly or through one another, in order."""
    kept: list[str] = []
    for name, meaning in reversed(definitions):
        if re.search(rf"(?<![\w.]){name}\b", text):
            kept.append(f"{name} = {meaning}")
            text += f"\n{meaning}"
    return kept[::-1]
