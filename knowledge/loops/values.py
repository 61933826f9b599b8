"""Values as C++ statements: made on demand, in the scope they belong to, once."""

import math
from dataclasses import dataclass, field
from functools import cached_property

from knowledge.loops.form import Loop, Value
from knowledge.loops.indices import Indices, Spacing, steps_of
from knowledge.loops.needs import atoms_of_values
from knowledge.loops.plan import Plan
from knowledge.loops.scalars import SCALARS
from knowledge.loops.spelling import (
    STORAGE,
    indented,
    label_of,
    literal,
    loaded,
    names_of,
    parenthesised,
    sum_of,
)
from knowledge.program import variable

_WHOLE_QUOTIENTS = ("floor_int", "trunc_int", "remainder_of")


@dataclass
class Scope:
    """Lines of one block, and which values they have already made, by the name that holds them."""

    lines: list[str] = field(default_factory=list)
    made: dict[int, str] = field(default_factory=dict)


class Values:
    """The statements of one loop under construction.

    `unit` comes before the parallel part, `row` is one row's, `final` comes after; `sweep` is the
    sweep under construction, of level `level`.
    """

    def __init__(self, loop: Loop, at: Indices, plan: Plan) -> None:
        self.loop, self.at, self.values = loop, at, loop.values
        self.kept = dict(plan.kept)
        self.unit, self.row, self.final, self.sweep = Scope(), Scope(), Scope(), Scope()
        self.level = 0
        # Conditions that hold, or don't, throughout the part of the loop under construction; and
        # the atoms of the innermost loop where it is cut at all its seams.
        self.assumed: dict[int, bool] = {}
        self.cut: tuple[int, ...] = ()
        # Halves that the sweep under construction reads and writes a run at a time, by the name of
        # their buffer: where the row lies. None where it takes them one by one.
        self.widened: dict[str, str] | None = None
        self.narrowed: dict[str, str] = {}
        # Of those that are read, the ones whose buffer is a row buffer, by the name of that.
        self.widened_into: dict[str, str] = {}
        self.operand_names = names_of([variable(operand.ref) for operand in loop.operands], "")
        self.spacings: list[Spacing] = [
            {group.name: f"{name}_{group.name}" for group in steps_of(loop, operand)}
            for operand, name in zip(loop.operands, self.operand_names, strict=True)
        ]
        self.store_names = names_of([variable(store.ref) for store in loop.stores], "out_")

    def use(self, number: int, place: str) -> str:
        """The expression for a value at a place: `unit`, `row`, `element` or `final`."""
        value = self.values[number]
        if value.op == "constant":
            return parenthesised(literal(value.number, value.type))
        if value.stage == "element" and number in self.kept and value.level < self.level:
            return self._from_kept(number)
        if value.op == "where" and value.args[0] in self.assumed:
            return self.use(value.args[1 if self.assumed[value.args[0]] else 2], place)
        if value.op == "within" and self.is_cut(value):
            return self.use(value.args[0], place)
        if value.stage == "unit":
            return self._made(number, self.unit, "unit")
        if value.stage == "final":
            return self._made(number, self.final, "final")
        if value.stage == "row":
            name = self._made_in_row(number)
            return f"{name}[lane]" if self.at.lanes else name
        return self._made(number, self.sweep, "element")

    def _from_kept(self, number: int) -> str:
        """A value that an earlier sweep left in a row buffer."""
        if number not in self.sweep.made:
            name = self.name_in_turn(number)
            self.sweep.made[number] = name
            self.sweep.lines.append(
                f"const {self.values[number].type} {name} = "
                f"{self.kept_name(number)}[{self.kept_index()}];"
            )
        return self.sweep.made[number]

    def is_cut(self, within: Value) -> bool:
        """Whether an index stays in range, as the loop ends where it would not."""
        position = self.values[within.args[1]]
        return position.op == "position" and bool(self.cut) and position.atoms == self.cut

    def name_of(self, number: int) -> str:
        """The C++ name of a value."""
        return f"v{number}_{label_of(self.values[number])}"

    def name_in_turn(self, number: int) -> str:
        """The name of a value where elements of the innermost group may take turns."""
        name = self.name_of(number)
        if self.at.turn is None or number not in self._turning:
            return name
        return f"{name}_{self.at.turn}"

    def take_turn(self, turn: int | None) -> None:
        """Go on to another element of the innermost group, for which some values are made anew."""
        self.at.turn = turn
        made = self.sweep.made
        self.sweep.made = {n: name for n, name in made.items() if n not in self._turning}

    @cached_property
    def _turning(self) -> set[int]:
        """The values that depend on the innermost group."""
        innermost = set(self.at.columns[-1].atoms)
        spans = atoms_of_values(self.loop)
        return {number for number, atoms in enumerate(spans) if innermost & atoms}

    @cached_property
    def tiled(self) -> list[int]:
        """The operands that are read through a tile."""
        found = {
            value.operand
            for value in self.values
            if value.op == "load"
            and not value.args
            and value.stage == "element"
            and self.at.in_tile(self.loop.operands[value.operand].atoms)
        }
        return sorted(found)

    def tile_name(self, number: int) -> str:
        """The tile of an operand."""
        return f"tile_{self.operand_names[number]}"

    @cached_property
    def lane_end(self) -> str:
        """Where loops over lanes end that read no memory but the thread's own.

        In tiles at a constant: lanes to spare compute what nobody reads. But not where they would
        divide whole numbers by 0, nor where an address is computed.
        """
        safe = self.at.form == "tiles" and not any(
            (value.op == "load" and value.args and value.stage == "element")
            or (value.op in _WHOLE_QUOTIENTS and self.values[value.args[1]].op != "constant")
            for value in self.values
        )
        return "LANES" if safe else "lanes"

    def lane_array(self, number: int) -> str:
        """The line that makes room for a value of each lane; 0 in lanes to spare."""
        read = self.values[number].op in ("load", "gather")
        start = " = {}" if read and self.lane_end == "LANES" else ""
        return f"{self.values[number].type} {self.name_of(number)}[LANES]{start};"

    def kept_name(self, number: int) -> str:
        """The row buffer of a kept value."""
        return f"kept_{self.name_of(number)}"

    def is_widened_into_kept(self, number: int) -> bool:
        """Whether a kept value is a half that is converted straight into its row buffer."""
        value = self.values[number]
        if value.op != "load" or self.widened is None:
            return False
        name = f"wide_{self.operand_names[value.operand]}"
        if name in self.widened:
            self.widened_into[name] = self.kept_name(number)
        return name in self.widened

    def kept_index(self) -> str:
        """The current element's place in a row buffer."""
        column = self.at.column()
        return f"({column}) * LANES + lane" if self.at.lanes else column

    def _made(self, number: int, scope: Scope, place: str) -> str:
        if number not in scope.made:
            text = self._expression(number, place)
            name = self.name_in_turn(number)
            scope.made[number] = name
            scope.lines.append(f"const {self.values[number].type} {name} = {text};")
        return scope.made[number]

    def _made_in_row(self, number: int) -> str:
        if number in self.row.made:
            return self.row.made[number]
        value = self.values[number]
        if value.op == "gather":
            return self._gathered(number)
        text = self._expression(number, "row")
        name = self.name_of(number)
        self.row.made[number] = name
        if self.at.lanes:
            body = [*self.lane_indices(), f"{name}[lane] = {text};"]
            end = "lanes" if value.op == "load" else self.lane_end
            self.row.lines += [self.lane_array(number), *self.lane_loop(body, end)]
        else:
            self.row.lines.append(f"const {value.type} {name} = {text};")
        return name

    def _expression(self, number: int, place: str) -> str:
        value = self.values[number]
        if value.op == "count":
            names = [g.name for g in self.at.all if set(g.atoms) & set(value.atoms)]
            return f"static_cast<{value.type}>({' * '.join(names) or '1'})"
        if value.op == "position":
            return self.at.position(value.atoms) if value.atoms else self.at.column()
        if value.op == "load":
            return self._load_at(number) if value.args else self._load(value)
        if value.op == "within":
            index = self.use(value.args[0], place)
            end = int(value.number) - 1
            return f"{index} < 0 ? 0 : {index} > {end} ? {end} : {index}"
        args = [self.use(arg, place) for arg in value.args]
        if value.op == "cast":
            return (
                f"{args[0]} != 0"
                if value.type == "bool"
                else f"static_cast<{value.type}>({args[0]})"
            )
        if value.op in ("maximum", "minimum"):
            return self._bounded(value, args)
        return SCALARS[value.op].cpp.format(*args)

    def _bounded(self, value: Value, args: list[str]) -> str:
        """The larger or the smaller; of a number and what may be NaN, one choice keeps the NaN."""
        larger = value.op == "maximum"
        for arg, bound, other in zip(value.args, args, reversed(args), strict=True):
            constant = self.values[arg]
            if constant.op == "constant" and not math.isnan(constant.number):
                return f"{bound} {'>' if larger else '<'} {other} ? {bound} : {other}"
        return SCALARS[value.op].cpp.format(*args)

    def _load(self, value: Value) -> str:
        operand = self.loop.operands[value.operand]
        name = self.operand_names[value.operand]
        if value.stage == "unit":
            return loaded(operand.dtype, f"{name}[0]")
        spacing = self.spacings[value.operand]
        if value.stage == "row":
            terms = [self.at.row_offset(operand.atoms, spacing)]
            if self.at.lanes:
                terms.append(self.at.element_offset(operand.atoms, spacing))
            return loaded(operand.dtype, f"{name}[{sum_of(terms)}]")
        offset = self.at.element_offset(operand.atoms, spacing)
        if self.at.in_tile(operand.atoms):
            place = self.at.tile_place(operand.atoms)
            return loaded(operand.dtype, f"{self.tile_name(value.operand)}[{place}]")
        pointer = self.read_pointer(value.operand)
        if operand.dtype == "float16" and offset == "col" and self.widened is not None:
            self.widened[f"wide_{name}"] = pointer
            return f"wide_{name}[col - begin]"
        return loaded(operand.dtype, f"{pointer}[{offset}]")

    def _load_at(self, number: int) -> str:
        """An element of an operand that has extents, which are read at indices of their own."""
        value = self.values[number]
        operand, name = self.loop.operands[value.operand], self.operand_names[value.operand]
        row: list[str] = []
        element: list[str] = []
        for unit, sizes in self.at.units(operand):
            if isinstance(unit, int):
                inside = self.values[value.args[unit]].stage == "element"
                index = self.use(value.args[unit], "element" if inside else "row")
            else:
                inside = unit in self.at.columns
                index = self.at.place(unit)
            (element if inside else row).append(" * ".join([index, *sizes]))
        if value.stage != "element" or self.at.lanes or not element:
            return loaded(operand.dtype, f"{name}[{sum_of([*row, *element])}]")
        pointer = name
        if row:
            pointer = self._free(f"{name}_{number}")
            line = f"const {STORAGE[operand.dtype]}* {pointer} = {name} + {sum_of(row)};"
            if line not in self.row.lines:
                self.row.lines.append(line)
        return loaded(operand.dtype, f"{pointer}[{sum_of(element)}]")

    def read_pointer(self, number: int) -> str:
        """The pointer to a row of an operand."""
        operand, name = self.loop.operands[number], self.operand_names[number]
        offset = self.at.row_offset(operand.atoms, self.spacings[number])
        return self.row_pointer(name, f"const {STORAGE[operand.dtype]}", offset)

    def write_pointer(self, number: int) -> str:
        """The pointer to a row of a store."""
        store, name = self.loop.stores[number], self.store_names[number]
        return self.row_pointer(name, STORAGE[store.dtype], self.at.row_offset(store.atoms))

    def row_pointer(self, name: str, storage: str, offset: str) -> str:
        """The pointer to a row of a tensor; the line that makes it goes to the row's."""
        if offset in ("", "0"):
            return name
        pointer = self._free(f"{name}_row")
        line = f"{storage}* {pointer} = {name} + {offset};"
        if line not in self.row.lines:
            self.row.lines.append(line)
        return pointer

    def _free(self, name: str) -> str:
        """A name that hides no tensor's: of `view` and `view_2`, load 2 of the first would."""
        while name in self.operand_names or name in self.store_names:
            name += "_"
        return name

    def lane_indices(self) -> list[str]:
        """Lines that find the inner indices of a lane, where there are several."""
        if len(self.at.inner) < 2:
            return []
        return self.at.unravelled(self.at.inner, "(first + lane)")

    def lane_loop(self, body: list[str], end: str) -> list[str]:
        """A vector loop over neighbouring rows."""
        head = f"for (int64_t lane = 0; lane < {end}; ++lane) {{"
        return ["#pragma omp simd", head, *indented(body), "}"]

    def _gathered(self, number: int) -> str:
        """A row value that is an element at a column of its own; NaN where there is none."""
        value, name = self.values[number], self.name_of(number)
        column, target = value.args
        label = self.use(column, "row")
        outside = self.sweep, self.level, self.kept
        assumed = self.assumed, self.cut
        widened, self.widened = self.widened, None
        # Evaluated anew, not read from what earlier sweeps kept: it is one element only.
        self.sweep, self.level, self.kept = Scope(), self.values[target].level, {}
        self.assumed, self.cut = {}, ()
        result = self.use(target, "element")
        body = [*self.at.unravelled(self.at.columns, "label")] if len(self.at.columns) > 1 else []
        body += ["const int64_t col = label;"] if len(self.at.columns) == 1 else []
        body += [*self.sweep.lines, f"{{}} = {result};"]
        self.sweep, self.level, self.kept = outside
        self.assumed, self.cut = assumed
        self.widened = widened
        limit = " * ".join(group.name for group in self.at.columns) or "1"
        place = f"{name}[lane]" if self.at.lanes else name
        empty = "NAN" if value.type in ("float", "double") else "0"
        body[-1] = body[-1].format(place)
        block = [
            f"const int64_t label = {label};",
            f"{place} = {empty};",
            f"if (label >= 0 && label < {limit}) {{",
            *indented(body),
            "}",
        ]
        self.row.made[number] = name
        if self.at.lanes:
            head = "for (int64_t lane = 0; lane < lanes; ++lane) {"
            inside = [*self.lane_indices(), *block]
            self.row.lines += [self.lane_array(number), head, *indented(inside), "}"]
        else:
            self.row.lines += [f"{value.type} {name};", "{", *indented(block), "}"]
        return name
