"""Prints a fused loop as Triton: a kernel, one that finishes totals, and what launches them.

A block that holds whole rows makes every value once; a row that is walked in several blocks is read
again for each level, but for a sum of exponentials, which is gathered along with its maximum.
Totals over everything are partial sums of a fixed number of programs, put together by a second
kernel in a fixed order: the result is the same to the bit every time.
"""

import re
from dataclasses import dataclass

from knowledge.loops.form import Loop, Refused, Store, Value, ValueType
from knowledge.loops.indices import Group, Indices
from knowledge.loops.plan import Options, Plan
from knowledge.loops.spelling import indented
from knowledge.loops.triton_mathematics import (
    TYPES,
    filled,
    helpers,
    joined,
    literal,
    reduced,
    start_of,
)
from knowledge.loops.triton_tile import Shape, Tile, Wish, choose
from knowledge.loops.triton_values import TritonValues
from knowledge.loops.values import Scope

# Programs that share the work of a total: enough to fill 132 multiprocessors seven times over, few
# enough that one block adds them up.
PROGRAMS = 1024
WIDTH = 96
# So many terms each lane of a block adds in float32; more in float64.
MOST_TERMS = 1024


@dataclass(frozen=True)
class Printed:
    """The text of one kernel: its jit functions and launcher, and definitions shared by several.

    `longest` is the longest row that it takes; 0 for any. `programs` is how many share the work at
    the traced sizes; 0 where that was not counted.
    """

    source: str
    helpers: tuple[str, ...]
    longest: int = 0
    programs: int = 0


class TritonPrinter:
    """Prints one loop; `kernel_lines`, `finish_lines` and `launcher` are its three functions."""

    def __init__(self, loop: Loop, name: str, options: Options, wish: Wish) -> None:
        self.loop, self.name, self.values = loop, name, loop.values
        self.at = Indices(loop)
        self.plan = Plan(loop, self.at, options)
        self.shape = self.chosen(wish)
        self.tile = self.tiled()
        self.wide = options.accumulate == "double" or self._terms() > MOST_TERMS
        self.made = TritonValues(loop, self.tile, options.exp == "inline")
        self.updates: list[str] = []
        self.online = self.online_sums() if self.shape.looped else {}

    def chosen(self, wish: Wish) -> Shape:
        """The kind and sizes of a tile."""
        return choose(self.loop, self.at, self.plan, wish)

    def tiled(self) -> Tile:
        """Where the elements of a tile lie."""
        return Tile(self.loop, self.at, self.shape)

    def kernel_lines(self) -> list[str]:
        """The body of the kernel; empty where there is nothing to do but the finish."""
        row = self.made.row
        if not self.shape.looped:
            self.made.sweep = Scope(lines=row.lines)
        for level in range(self.plan.levels):
            self._level(level)
        for number in self.plan.row_totals:
            row.lines.append(self._added(number, "row"))
        for number, store in enumerate(self.loop.stores):
            if self.plan.is_row_store(store):
                row.lines.append(self._store(number, store, "row"))
        if not row.lines:
            return []
        task = "task" if self.plan.totals else "tl.program_id(0)"
        text = "\n".join(row.lines)
        columns = [] if self.shape.looped else self.tile.column_lines(task, text)
        body = [*self.tile.row_lines(task, "\n".join([*columns, text])), *columns, *row.lines]
        if self.plan.totals:
            body = self._over_tasks(body)
        return [*self.made.unit.lines, *body]

    def online_sums(self) -> dict[int, int]:
        """Maxima over a row with the sum of exponentials below each, as a softmax has them."""
        found: dict[int, int] = {}
        for number, value in enumerate(self.values):
            below = (
                self.values[value.args[0]] if value.op == "fold" and value.fold == "sum" else None
            )
            shifted = self.values[below.args[0]] if below and below.op == "exp" else None
            if shifted is None or shifted.op != "sub":
                continue
            element, maximum = shifted.args
            top = self.values[maximum]
            if top.op == "fold" and top.fold == "max" and top.args == (element,):
                found.setdefault(maximum, number)
        return found

    def _level(self, level: int) -> None:
        """Append what one sweep gathers and stores to the lines of the task."""
        if self.shape.looped:
            self.made.sweep = Scope()
        self.updates, finish = [], []
        folds = [
            number
            for number, value in enumerate(self.values)
            if value.op == "fold" and self.values[value.args[0]].level == level
        ]
        with_maximum = set(self.online.values())
        for number in folds:
            if number in self.online:
                finish += self._fold_online(number, self.online[number])
            elif number not in with_maximum:
                finish += self._fold(number)
        for number in self.plan.element_totals:
            if self.values[self.values[number].args[0]].level == level:
                self.updates.append(self._added(number, "element"))
        for number, store in enumerate(self.loop.stores):
            if self.plan.is_element_store(store) and self.values[store.value].level == level:
                self.updates.append(self._store(number, store, "element"))
        if self.shape.looped and self.updates:
            body = [*self.made.sweep.lines, *self.updates]
            body = [*self.tile.column_lines("", "\n".join(body)), *body]
            head = f"for start in range(0, {self.tile.columns}, BLOCK):"
            self.made.row.lines += [head, *indented(body), *finish]
        else:
            self.made.row.lines += [*self.updates, *finish]

    def _terms(self) -> int:
        """How many elements of a row one lane of a block adds up."""
        columns = self.loop.domain.count(self.loop.domain.columns)
        return columns // self.shape.block if self.shape.looped else 1

    def _kind(self, value: Value) -> ValueType:
        """The type in which a row is gathered."""
        wide = value.type == "float" and value.fold in ("sum", "prod") and self.wide
        return "double" if wide else value.type

    def _masked(self, number: int, place: str, kind: ValueType) -> str:
        """What a reduction takes in: its argument, or its start where the tile has nothing."""
        value = self.values[number]
        arg = value.args[0]
        text = self.made.use(arg, place)
        if self.values[arg].type != kind:
            text = f"{text}.to({TYPES[kind]})"
        mask = self.tile.whole_mask(place == "element")
        return f"tl.where({mask}, {text}, {start_text(value, kind)})" if mask else text

    def _fold(self, number: int) -> list[str]:
        """Gather a row; returns what comes after the loop over its blocks."""
        value, name = self.values[number], self.made.name_of(number)
        kind = self._kind(value)
        masked = self._masked(number, "element", kind)
        self.made.row.made[number] = name
        narrow = f".to({TYPES[value.type]})" if kind != value.type else ""
        keep = not self.tile.flat
        if not self.shape.looped:
            block = f"{reduced(value.fold, masked, self.tile.axis, keep)}{narrow}"
            self.made.row.lines.append(f"{name} = {block}")
            return []
        start = filled(start_of(value.fold, kind), kind, self.tile.full)
        self.made.row.lines.append(f"{name}_all = {start}")
        self.updates.append(f"{name}_all = {joined(value.fold, f'{name}_all', masked)}")
        block = reduced(value.fold, f"{name}_all", self.tile.axis, keep)
        return [f"{name} = {block}{narrow}"]

    def _fold_online(self, maximum: int, total: int) -> list[str]:
        """Gather a maximum and the sum of exponentials below it, scaled anew as the maximum grows.

        Milakov and Gimelshein, Online normalizer calculation for softmax, 2018. There is one
        maximum a row, and so one exponential an element; what equals it counts 1, which keeps a
        row that has begun with -inf alone from becoming NaN. Blocks are added in double, as few
        numbers a row.
        """
        value = self.values[total]
        kind: ValueType = "double" if value.type == "float" else value.type
        top, name = self.made.name_of(maximum), self.made.name_of(total)
        exp = "tl.exp" if self.made.hardware else "libdevice.exp"
        masked = self._masked(maximum, "element", self.values[maximum].type)
        element = self.made.use(self.values[maximum].args[0], "element")
        self.made.row.made |= {maximum: top, total: name}
        start = start_of("max", self.values[maximum].type)
        self.made.row.lines += [
            f"{top}_all = {filled(start, self.values[maximum].type, self.tile.side)}",
            f"{name}_all = {filled(0, kind, self.tile.side)}",
        ]
        inside, keep = self.tile.whole_mask(element=True), not self.tile.flat
        highest = reduced("max", masked, self.tile.axis, keep)
        part = f"tl.where({inside}, {name}_part, 0.0)"
        self.updates += [
            f"{top}_new = nan_max({top}_all, {highest})",
            f"{name}_part = tl.where({element} == {top}_new, 1.0, {exp}({element} - {top}_new))",
            f"{name}_all *= tl.where({top}_all == {top}_new, 1.0, {exp}({top}_all - {top}_new))",
            f"{name}_all += {reduced('sum', part, self.tile.axis, keep)}",
            f"{top}_all = {top}_new",
        ]
        # As in torch, where infinity less itself is among the exponents.
        whole = f'tl.where(tl.abs({top}) < float("inf"), {name}_all, float("nan"))'
        return [f"{top} = {top}_all", f"{name} = {whole}.to({TYPES[value.type]})"]

    def _total_type(self, number: int) -> ValueType:
        """The type in which the programs' parts are put together."""
        value = self.values[number]
        return "double" if value.type == "float" and value.fold in ("sum", "prod") else value.type

    def _added(self, number: int, place: str) -> str:
        value, name = self.values[number], f"{self.made.name_of(number)}_all"
        kind = self._kind(value) if place == "element" else self._total_type(number)
        return f"{name} = {joined(value.fold, name, self._masked(number, place, kind))}"

    def _store(self, number: int, store: Store, place: str) -> str:
        if self.at.lanes and not set(store.atoms) & set(self.loop.domain.inner):
            raise Refused("a result is the same for all neighbours of a row, and written for each")
        element = place == "element"
        text = self.made.use(store.value, place)
        name, where = self.made.store_names[number], self.tile.offset(store.atoms, self.made.place)
        mask = self.tile.mask(store.atoms, element, self.made.place)
        pointer = f"{name} + {where}" if where else name
        return f"tl.store({pointer}, {text}{f', mask={mask}' if mask else ''})"

    def _over_tasks(self, body: list[str]) -> list[str]:
        """Every program takes each so many-th task, and writes its part of each total."""
        starts, ends = [], []
        for number in self.plan.totals:
            value, name = self.values[number], self.made.name_of(number)
            in_tile = number in self.plan.element_totals
            kind = self._kind(value) if in_tile else self._total_type(number)
            shape = self.tile.full if in_tile else self.tile.side
            starts.append(f"{name}_all = {filled(start_of(value.fold, kind), kind, shape)}")
            part = f"{name}_all"
            for _ in range(0 if shape == "()" else 1 if self.tile.flat else 2):
                part = reduced(value.fold, part, 0, keep=False)
            final = self._total_type(number)
            part = f"{part}.to({TYPES[final]})" if kind != final else part
            ends.append(f"tl.store(parts_{name} + tl.program_id(0), {part})")
        return [
            *starts,
            "for turn in range(tl.program_id(0), tasks, programs):",
            "    task = tl.cast(turn, tl.int64)",
            *indented([line.replace("task.to(tl.int64)", "task") for line in body]),
            *ends,
        ]

    def finish_lines(self) -> list[str]:
        """The body of the kernel that puts totals together and stores what follows from them."""
        lines: list[str] = []
        for number in self.plan.totals:
            value, name, kind = (
                self.values[number], self.made.name_of(number), self._total_type(number),
            )  # fmt: skip
            other = start_text(value, kind)
            narrow = f".to({TYPES[value.type]})" if kind != value.type else ""
            lines += [
                f"{name}_parts = tl.load(parts_{name} + part, mask=part < programs, other={other})",
                f"{name} = {reduced(value.fold, f'{name}_parts', 0, keep=False)}{narrow}",
            ]
            self.made.final.made[number] = name
        stores = []
        for number, store in enumerate(self.loop.stores):
            if not self.plan.is_element_store(store) and not self.plan.is_row_store(store):
                text = self.made.use(store.value, "final")
                stores.append(f"tl.store({self.made.store_names[number]}, {text})")
        head = ["part = tl.arange(0, PARTS)"] if self.plan.totals else []
        return [*head, *lines, *self.made.final.lines, *stores] if stores else []

    def text(self, note: str) -> Printed:
        """All that the module needs.

        Raises:
            Refused: the loop asks for something that has no schedule or no form in Triton.
        """
        kernel, finish = self.kernel_lines(), self.finish_lines()
        source = [
            *self._function("kernel", kernel, ("BLOCK", "ROWS", "LANES")),
            *self._function("finish", finish, ("PARTS",)),
            *self._launcher(note, kernel, finish),
        ]
        text = "\n".join(source)
        return Printed(text + "\n", helpers(text), self.tile.longest, self._programs())

    def _parameters(self, lines: list[str]) -> list[str]:
        """What a kernel's text reads and is therefore handed, in order."""
        parts = [f"parts_{self.made.name_of(number)}" for number in self.plan.totals]
        sizes = [*(group.name for group in self.at.all), *self.made.step_names]
        known = [*self.made.operand_names, *self.made.store_names, *parts, *sizes]
        text = "\n".join(lines)
        return [
            name
            for name in [*known, "tasks", "programs"]
            if re.search(rf"(?<![\w.]){name}\b", text)
        ]

    def _function(self, what: str, lines: list[str], constants: tuple[str, ...]) -> list[str]:
        if not lines:
            return []
        text = "\n".join(lines)
        given = [f"{name}: tl.constexpr" for name in constants if re.search(rf"\b{name}\b", text)]
        head = call_lines(f"def {self.name}_{what}", [*self._parameters(lines), *given], ":")
        return ["@triton.jit", *head, *indented(lines), "", ""]

    def _launcher(self, note: str, kernel: list[str], finish: list[str]) -> list[str]:
        sizes = [*(group.name for group in self.at.all), *self.made.step_names]
        given = [*self.made.operand_names, *self.made.store_names, *sizes]
        lines = [f'"""{note}."""']
        if kernel:
            lines += self._launch(kernel)
        if finish:
            given_parts = [f"PARTS={PROGRAMS}"] if self.plan.totals else []
            arguments = [*self._parameters(finish), *given_parts]
            lines += call_lines(f"{self.name}_finish[(1,)]", arguments, "")
        return [*call_lines(f"def _{self.name}", given, ":"), *indented(lines)]

    def _launch(self, kernel: list[str]) -> list[str]:
        grid, lines = self._grid(), []
        if self.plan.totals:
            lines += [f"tasks = {grid}", f"programs = min(tasks, {PROGRAMS})"]
            device = f"{self.made.store_names[0]}.device"
            for number in self.plan.totals:
                kind = TYPES[self._total_type(number)].replace("tl.", "torch.")
                name = f"parts_{self.made.name_of(number)}"
                lines.append(f"{name} = torch.empty(programs, dtype={kind}, device={device})")
            grid = "programs"
        block = str(self.shape.block)
        if self.shape.fits:
            block = f"triton.next_power_of_2({_times(self.at.columns)})"
        meta = {"BLOCK": block, "ROWS": str(self.shape.rows), "LANES": str(self.shape.rows)}
        text = "\n".join(kernel)
        constants = [f"{k}={v}" for k, v in meta.items() if re.search(rf"\b{k}\b", text)]
        arguments = [*self._parameters(kernel), *constants, f"num_warps={self.shape.warps}"]
        head = f"{self.name}_kernel[({grid},)]"
        return [*lines, *call_lines(head, arguments, "")]

    def _programs(self) -> int:
        """How many programs there are at the traced sizes."""
        domain, shape = self.loop.domain, self.shape
        rows, columns = domain.count(domain.outer), domain.count(domain.columns)
        blocks = -(-columns // shape.block)
        found = {
            "flat": blocks,
            "lanes": rows * -(-domain.count(domain.inner) // shape.rows),
        }.get(shape.kind, rows * blocks if shape.spread else -(-rows // shape.rows))
        return min(found, PROGRAMS) if self.plan.totals else found

    def _grid(self) -> str:
        """How many programs there are, as an expression."""
        rows, columns = _times(self.at.outer), _times(self.at.columns)
        if self.shape.kind == "flat":
            return f"triton.cdiv({columns}, {self.shape.block})"
        if self.shape.kind == "lanes":
            return f"{rows} * triton.cdiv({_times(self.at.inner)}, {self.shape.rows})"
        if self.shape.spread:
            return f"{rows} * triton.cdiv({columns}, {self.shape.block})"
        return rows if self.shape.rows == 1 else f"triton.cdiv({rows}, {self.shape.rows})"


def _times(groups: tuple[Group, ...]) -> str:
    """A product of sizes where kernels are launched: Python's numbers have any length."""
    return " * ".join(group.name for group in groups) or "1"


def start_text(value: Value, kind: ValueType) -> str:
    """What a reduction starts from, as it is written."""
    return literal(start_of(value.fold, kind), kind)


def call_lines(head: str, arguments: list[str], end: str) -> list[str]:
    """A call or a definition's head, over several lines where one is too short."""
    line = f"{head}({', '.join(arguments)}){end}"
    if len(line) <= WIDTH:
        return [line]
    lines = [""]
    for argument in arguments:
        if lines[-1] and len(lines[-1]) + len(argument) > WIDTH - 6:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{argument},"
    return [f"{head}(", *indented(lines), f"){end}"]


def print_triton(
    loop: Loop, name: str, note: str, options: Options, wish: Wish | None = None
) -> Printed | Refused:
    """The loop as Triton; a `Refused` where it has no form there."""
    try:
        return TritonPrinter(loop, name, options, wish or Wish()).text(note)
    except Refused as refusal:
        return refusal
