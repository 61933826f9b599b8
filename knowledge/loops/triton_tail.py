"""Fuses a loop into a Triton kernel that makes what it reads, tile by tile, in registers.

An *anchor* (a product, an attention) holds a tile of its result, [ROWS, COLUMNS], and calls it
`acc`. The loop's values are printed on that tile. A reduction along rows needs whole rows in the
tile, or else is done in two passes: each tile's part, and then a small kernel that joins the parts.
"""

from dataclasses import dataclass
from typing import Literal

from knowledge.loops.epilogue import largest
from knowledge.loops.form import Loop, Refused
from knowledge.loops.indices import Group, groups_of
from knowledge.loops.kernel import Shapes, operations_of
from knowledge.loops.lower import lower, read_outside
from knowledge.loops.plan import Options
from knowledge.loops.spelling import indented
from knowledge.loops.triton import TritonPrinter, call_lines, start_text
from knowledge.loops.triton_mathematics import TYPES, reduced
from knowledge.loops.triton_tile import Shape, Tile, Wish, needed
from knowledge.loops.triton_values import TritonValues
from knowledge.opgraph import Ref
from knowledge.program import Check, Program, Size, Written

# Up to so many parts of a row are joined at once, and in tiles of so many elements.
JOINED_TILE = 1024

Kind = Literal["element", "row", "parts"]


@dataclass(frozen=True)
class Frame:
    """How the kernel around an epilogue names what its tile holds.

    `row` counts rows of the whole result, [ROWS, 1], and `col` columns, [1, COLUMNS]; `in_row` and
    `in_col` are their masks.
    """

    row: str
    in_row: str
    col: str
    in_col: str

    def definitions(self) -> list[tuple[str, str]]:
        """Names and what they mean, each only after what it needs."""
        return [
            ("row", self.row), ("in_row", self.in_row), ("col", self.col), ("in_col", self.in_col),
            ("inside", "in_row & in_col"),
        ]  # fmt: skip


class _FramedTile(Tile):
    """A tile whose rows and columns are those of the kernel around it."""

    def __init__(self, loop: Loop, printer: "EpiloguePrinter") -> None:
        super().__init__(loop, printer.at, printer.shape)
        self.frame = printer.frame

    def row_lines(self, task: str, text: str) -> list[str]:
        """Lines that find rows and columns of the tile, as far as `text` needs them."""
        outer, columns = self.at.outer, self.at.columns
        found = self.frame.definitions()
        found += [*self._unravelled(outer, "row"), *self._unravelled(columns, "col")]
        return needed(found, text)

    def column_lines(self, task: str, text: str) -> list[str]:
        """None: those of rows say it all."""
        return []


class EpiloguePrinter(TritonPrinter):
    """Prints a loop on a tile that is there; `lead` are lines that come before it."""

    def __init__(
        self, loop: Loop, ref: Ref, name: str, options: Options, frame: Frame, lead: list[str]
    ) -> None:
        self.frame = frame
        super().__init__(loop, name, options, Wish())
        self.made = TritonValues(loop, self.tile, options.exp == "inline", {ref: "acc"})
        self.made.row.lines += lead

    def chosen(self, wish: Wish) -> Shape:
        """Whole rows: what a tile holds is the surrounding kernel's choice."""
        return Shape("rows", 1, 2, 4)

    def tiled(self) -> Tile:
        """The surrounding kernel's tile."""
        return _FramedTile(self.loop, self)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of indices, whose sizes the kernel may need."""
        return self.at.all

    def folds(self) -> list[int]:
        """Every reduction of a row."""
        return [number for number, value in enumerate(self.values) if value.op == "fold"]

    def part_lines(self, at: str) -> list[str]:
        """Stores what each reduction finds in this tile, for `join_lines`; `at` is its place.

        Raises:
            Refused: a reduction waits for the whole of another.
        """
        self.made.sweep.lines = self.made.row.lines
        sums = self._sums_below()
        for number in self.folds():
            if number in sums.values():
                continue
            value, kind = self.values[number], self.values[number].type
            name, masked = self.made.name_of(number), self._masked(number, "element", kind)
            self.made.row.lines.append(f"{name} = {reduced(value.fold, masked, 1, keep=True)}")
            self._keep_part(name, at)
            if number in sums:
                self._sum_below(number, sums[number], at)
        lines = self.made.row.lines
        return [*self.made.unit.lines, *self.tile.row_lines("", "\n".join(lines)), *lines]

    def _sums_below(self) -> dict[int, int]:
        """Maxima with the sums of exponentials below them; all else must need no other reduction.

        Raises:
            Refused: a reduction waits for the whole of another.
        """
        sums = dict(self.online_sums())
        for number in self.folds():
            if self.values[number].level != 1 and number not in sums.values():
                raise Refused("a reduction of a row waits for another one")
        if any(self.values[top].level != 1 for top in sums):
            raise Refused("a reduction of a row waits for another one")
        return sums

    def _sum_below(self, maximum: int, total: int, at: str) -> None:
        top, name = self.made.name_of(maximum), self.made.name_of(total)
        element = self.made.use(self.values[maximum].args[0], "element")
        exp = "tl.exp" if self.made.hardware else "libdevice.exp"
        part = f"tl.where({element} == {top}, 1.0, {exp}({element} - {top}))"
        self.made.row.lines += [
            f"{name}_part = {part}",
            f"{name} = {reduced('sum', f'tl.where(inside, {name}_part, 0.0)', 1, keep=True)}",
        ]
        self._keep_part(name, at)

    def _keep_part(self, name: str, at: str) -> None:
        self.made.row.lines.append(f"tl.store(parts_{name} + {at}, {name}, mask=in_row)")

    @property
    def part_names(self) -> list[tuple[str, str]]:
        """What the parts of reductions are called, and their types."""
        return [
            (f"parts_{self.made.name_of(number)}", TYPES[self.values[number].type])
            for number in self.folds()
        ]

    def join_lines(self, at: str, inside: str) -> list[str]:
        """Joins the parts, [ROWS, TILES] of them, and stores what follows from them."""
        sums = self._sums_below()
        lines = self.made.row.lines
        for number in self.folds():
            value, name = self.values[number], self.made.name_of(number)
            if number in sums.values():
                continue
            other = start_text(value, value.type)
            lines += [
                f"{name}_all = tl.load(parts_{name} + {at}, mask={inside}, other={other})",
                f"{name} = {reduced(value.fold, f'{name}_all', 1, keep=True)}",
            ]
            self.made.row.made[number] = name
            if number in sums:
                lines += self._joined_below(number, sums[number], at, inside)
        for number, store in enumerate(self.loop.stores):
            lines.append(self._store(number, store, "row"))
        return [*self.made.unit.lines, *self.tile.row_lines("", "\n".join(lines)), *lines]

    def _joined_below(self, maximum: int, total: int, at: str, inside: str) -> list[str]:
        top, name = self.made.name_of(maximum), self.made.name_of(total)
        exp = "tl.exp" if self.made.hardware else "libdevice.exp"
        below = f"{exp}({top}_all - {top})"
        self.made.row.made[total] = name
        return [
            f"{name}_all = tl.load(parts_{name} + {at}, mask={inside}, other=0.0)",
            f"{name}_all *= tl.where({top}_all == {top}, 1.0, {below})",
            f"{name} = {reduced('sum', f'{name}_all', 1, keep=True)}",
        ]


@dataclass(frozen=True)
class Tail:
    """The epilogue of an anchor: calls fused into it, and what its kernel must have for them.

    `kind` says whether it is done element by element, on whole rows in the tile, or in parts of
    rows that a second kernel joins. `keeps_anchor`: others read the anchor's result too.
    """

    loop: Loop
    ref: Ref
    kind: Kind
    nodes: tuple[str, ...]
    reads: tuple[Ref, ...]
    writes: tuple[Written, ...]
    sizes: tuple[Size, ...]
    checks: tuple[Check, ...]
    operations: int
    keeps_anchor: bool
    options: Options

    def printer(self, name: str, frame: Frame, lead: list[str]) -> EpiloguePrinter:
        """A printer for the kernel that names its tile so; `lead` are lines before the loop."""
        return EpiloguePrinter(self.loop, self.ref, name, self.options, frame, lead)

    @property
    def read_names(self) -> list[str]:
        """Names of the tensors that it reads besides the anchor's result."""
        made = self.printer("", Frame("", "", "", ""), []).made
        given = zip(self.loop.operands, made.operand_names, strict=True)
        return [name for operand, name in given if operand.ref != self.ref]

    @property
    def write_names(self) -> list[str]:
        """Names of the tensors that it writes."""
        return self.printer("", Frame("", "", "", ""), []).made.store_names


def find_tail(
    program: Program,
    anchor: str,
    shape: tuple[str, ...],
    columns: int,
    longest_row: int,
    options: Options | None = None,
) -> Tail | None:
    """The largest epilogue of a call on tiles of its result, or None where there is none.

    Args:
        program: the op; calls that its kernels compute already are left alone.
        anchor: the call, which makes one tensor.
        shape: Python expressions for the sizes of its result, which need not come into being.
        columns: how many elements of its result are a row, at the traced sizes.
        longest_row: the longest row that a tile can hold.
        options: the tunables of loops.
    """
    wanted = _Wanted(program, Ref(ref=anchor), shape, columns, longest_row, options or Options())
    return largest(program, anchor, lambda names: _attempt(wanted, names))


@dataclass(frozen=True)
class _Wanted:
    """What an epilogue is looked for with."""

    program: Program
    ref: Ref
    shape: tuple[str, ...]
    columns: int
    longest_row: int
    options: Options


def _attempt(wanted: _Wanted, names: tuple[str, ...]) -> Tail | None:
    graph = wanted.program.graph
    loop = lower(graph, tuple(graph.by_name[name] for name in names), wanted.columns)
    if isinstance(loop, str):
        return None
    operand = next((one for one in loop.operands if one.ref == wanted.ref), None)
    if operand is None or operand.atoms != loop.domain.everything:
        return None
    try:
        kind = _kind(wanted, loop.dense)
        return _made(wanted, names, loop.dense, kind) if kind is not None else None
    except Refused:
        return None


def _kind(wanted: _Wanted, loop: Loop) -> Kind | None:
    """The way in which a loop can be done on tiles.

    Raises:
        Refused: it has no form in Triton.
    """
    ops = {value.op for value in loop.values}
    if ops & {"total", "gather"}:
        return None
    printer = EpiloguePrinter(loop, wanted.ref, "", wanted.options, Frame("", "", "", ""), [])
    if "fold" not in ops:
        printer.kernel_lines()
        return "element"
    if wanted.columns <= wanted.longest_row:
        printer.kernel_lines()
        return "row"
    if all(printer.plan.is_row_store(store) for store in loop.stores):
        printer.part_lines("")
        return "parts"
    return None


def _made(wanted: _Wanted, names: tuple[str, ...], loop: Loop, kind: Kind) -> Tail | None:
    graph, ref = wanted.program.graph, wanted.ref
    shapes = Shapes(graph, loop, {ref: wanted.shape})
    reads = tuple(operand.ref for operand in loop.operands if operand.ref != ref)
    if len(set(reads)) != len(loop.operands) - 1:
        return None
    if not wanted.program.runs_as_one((ref.ref, *names)):
        return None
    groups = [group for part in groups_of(loop) for group in part]
    return Tail(
        loop=loop, ref=ref, kind=kind, nodes=names, reads=reads,
        writes=tuple(
            Written(ref=store.ref, shape=shapes.shape(store.layout), spec=graph.spec_of(store.ref))
            for store in loop.stores
        ),
        sizes=tuple(Size(name=g.name, expression=shapes.product(g.atoms)) for g in groups),
        checks=shapes.checks(), operations=operations_of(loop),
        keeps_anchor=ref in read_outside(graph, {ref.ref, *names}), options=wanted.options,
    )  # fmt: skip


def framed(frame: Frame, lines: list[str]) -> list[str]:
    """Lines on a tile without a loop, after what they need of the frame."""
    return [*needed(frame.definitions(), "\n".join(lines)), *lines]


def jit_function(name: str, parameters: list[str], lines: list[str]) -> list[str]:
    """A jit function; names in capitals are its constants."""
    given = [f"{one}: tl.constexpr" if one.isupper() else one for one in parameters]
    return ["@triton.jit", *call_lines(f"def {name}", given, ":"), *indented(lines), "", ""]
