"""Values as Triton statements: made on demand, in the scope they belong to, once."""

from knowledge.loops.form import Loop, Value
from knowledge.loops.indices import steps_of
from knowledge.loops.spelling import label_of
from knowledge.loops.triton_mathematics import (
    TYPES,
    expression,
    filled,
    literal,
    takes_numbers,
)
from knowledge.loops.triton_tile import Place, Tile
from knowledge.loops.values import Scope
from knowledge.opgraph import Ref
from knowledge.program import variable

# Words of Python and Triton, and the names that the printer gives.
_TAKEN = {
    "row", "col", "lane", "start", "strips", "inside", "task", "tasks", "programs", "part",
    "triton", "torch", "libdevice", "product", "nan_max", "nan_min", "floor_divide", "range",
    "float", "min", "max", "tl", "grid", "block", "acc", "left", "right", "added", "line", "across",
    "deep", "deep_at", "height", "width", "depth", "matrix", "tile", "tiles", "band", "wide",
    "high", "tall", "first", "last", "begin", "end", "span", "here", "at", "partial", "everything",
    "columns", "result", "total", "ahead", "left_at", "right_at", "left_tile", "right_tile", "n0",
    "n1", "n2", "n3", "log_add", "floor_of", "ceil_of", "power_of", "angle_of", "rest_of",
}  # fmt: skip


def names_of(wanted: list[str], prefix: str) -> list[str]:
    """Names of tensors as in the graph, unless the printer needs the word itself."""
    found: list[str] = []
    for text in wanted:
        name = prefix + text
        ours = name[:3] in ("row", "col", "in_", "inn") or name[:4] == "lane"
        if name in _TAKEN or ours or (name[0] == "v" and name[1:2].isdigit()):
            name = f"{name}_data"
        while name in found:
            name += "_"
        found.append(name)
    return found


class TritonValues:
    """The statements of one loop under construction.

    `unit` comes before the tasks, `row` is one task's, `sweep` is the block's under construction
    (the task's own where a block holds a whole row), `final` belongs to the finishing kernel.
    `held` are operands that are in registers already, by the names of their tiles.
    """

    def __init__(
        self, loop: Loop, tile: Tile, hardware: bool, held: dict[Ref, str] | None = None
    ) -> None:
        self.held = held or {}
        self.loop, self.tile, self.values, self.hardware = loop, tile, loop.values, hardware
        self.unit, self.row, self.final, self.sweep = Scope(), Scope(), Scope(), Scope()
        self.place = Place()
        self.operand_names = names_of([variable(operand.ref) for operand in loop.operands], "")
        self.store_names = names_of([variable(store.ref) for store in loop.stores], "out_")
        # By operand: what one step along a group is, where it is read as it lies.
        taken = {*self.operand_names, *self.store_names}
        self.spacings: list[dict[str, str]] = []
        for operand, name in zip(loop.operands, self.operand_names, strict=True):
            steps = {group.name: f"{name}_{group.name}" for group in steps_of(loop, operand)}
            while taken & set(steps.values()):
                steps = {group: f"{step}_" for group, step in steps.items()}
            taken |= set(steps.values())
            self.spacings.append(steps)

    @property
    def step_names(self) -> list[str]:
        """The parameters for steps, in the order in which a kernel is handed them."""
        return [step for spacing in self.spacings for step in spacing.values()]

    def name_of(self, number: int) -> str:
        """The name of a value."""
        return f"v{number}_{label_of(self.values[number])}"

    def use(self, number: int, place: str, inline: bool = False) -> str:
        """The expression for a value at a place: `unit`, `row`, `element` or `final`.

        Where `inline` says so, numbers are written as Python literals.
        """
        value = self.values[number]
        if value.op == "constant":
            if inline and value.type != "double":
                text = literal(value.number, value.type)
                return f"({text})" if text.startswith("-") else text
            return filled(value.number, value.type)
        if place == "final":
            # The finishing kernel is a function of its own: it reads and computes anew.
            return self._made(number, self.final, "final", "")
        if value.stage == "unit":
            return self._made(number, self.unit, "unit", "")
        if value.stage == "row":
            if value.op == "gather" and number not in self.row.made:
                return self._gathered(number)
            return self._made(number, self.row, "row", "")
        return self._made(number, self.sweep, "element", self.place.suffix)

    def _made(self, number: int, scope: Scope, place: str, suffix: str) -> str:
        if number not in scope.made:
            text = self._expression(number, place)
            scope.made[number] = self.name_of(number) + suffix
            scope.lines.append(f"{scope.made[number]} = {text}")
        return scope.made[number]

    def _expression(self, number: int, place: str) -> str:
        value = self.values[number]
        if value.op == "count":
            groups = [g.name for g in self.tile.at.all if set(g.atoms) & set(value.atoms)]
            whole = " * ".join([f"tl.full((), {(groups or ['1'])[0]}, tl.int64)", *groups[1:]])
            whole = f"({whole})" if groups[1:] else whole
            return whole if value.type == "int64_t" else f"{whole}.to({TYPES[value.type]})"
        if value.op == "position":
            here = self.place if place == "element" else Place()
            # Without atoms it is the column in the row, along which all its groups are one.
            index = self.tile.position(value.atoms, here) if value.atoms else here.column
            return f"tl.cast({index}, tl.int64)"
        if value.op == "load":
            return self._load_at(value, place) if value.args else self._load(value)
        if value.op == "within":
            index = self.use(value.args[0], place)
            return f"tl.minimum(tl.maximum({index}, 0), {int(value.number) - 1})"
        operands = value.args[1:] if value.op == "where" else value.args
        numbers = takes_numbers(value.op) and any(
            self.values[arg].op != "constant" for arg in operands
        )
        args = [self.use(arg, place, numbers) for arg in value.args]
        return expression(value, args, self.hardware)

    def _load(self, value: Value) -> str:
        operand = self.loop.operands[value.operand]
        if operand.ref in self.held:
            return self.held[operand.ref]
        element, place = (
            value.stage == "element",
            self.place if value.stage == "element" else Place(),
        )
        mask = ""
        if value.stage != "unit":
            mask = self.tile.mask(operand.atoms, element, place)
        offset = self.tile.offset(operand.atoms, place, self.spacings[value.operand])
        return self._loaded(value, offset, mask)

    def _loaded(self, value: Value, offset: str, mask: str) -> str:
        operand, name = self.loop.operands[value.operand], self.operand_names[value.operand]
        where = f"{name} + {offset}" if offset else name
        text = f"tl.load({where}{f', mask={mask}' if mask else ''})"
        narrow = operand.dtype in ("float16", "bfloat16", "int32", "int16", "int8", "uint8")
        return f"{text}.to({TYPES[value.type]})" if narrow else text

    def _load_at(self, value: Value, where: str) -> str:
        """Elements of an operand that has extents, which are read at indices of their own.

        Indices are anything where the tile has nothing, so that the mask is the tile's whole.
        """
        operand, element = self.loop.operands[value.operand], value.stage == "element"
        place = self.place if element else Place()
        terms = []
        for unit, sizes in self.tile.at.units(operand):
            if isinstance(unit, int):
                index = self.use(value.args[unit], where)
            else:
                index = self.tile.position(unit.atoms, place)
            terms.append(" * ".join([index, *sizes]))
        mask = "" if value.stage == "unit" else self.tile.whole_mask(element)
        return self._loaded(value, " + ".join(terms), place.mask or mask)

    def _gathered(self, number: int) -> str:
        """A row value that is an element at a column of its own; NaN where there is none."""
        value = self.values[number]
        column, target = value.args
        label, valid = f"label{number}", f"has{number}"
        text = self.use(column, "row")
        inside = f"({label} >= 0) & ({label} < {self.tile.columns})"
        side = self.tile.whole_mask(element=False)
        outside = self.sweep, self.place
        self.sweep = Scope()
        self.place = Place(column=label, mask=valid, suffix=f"_at{number}")
        result = self.use(target, "element")
        lines = self.tile.label_lines(self.place, "\n".join(self.sweep.lines))
        empty = 'float("nan")' if value.type in ("float", "double") else "0"
        name = self.name_of(number)
        self.row.lines += [
            f"{label} = {text}",
            f"{valid} = {inside}{f' & {side}' if side else ''}",
            *lines,
            *self.sweep.lines,
            f"{name} = tl.where({valid}, {result}, {empty})",
        ]
        self.sweep, self.place = outside
        self.row.made[number] = name
        return name
