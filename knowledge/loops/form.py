"""The fused-loop form: what one kernel computes, as values on a domain of outer x columns x inner.

A value lives on some axes of the domain; its level is the number of row reductions on its path, and
every level is one sweep over the row. Plain data; `knowledge.loops.cpp` prints it.
"""

from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal

from knowledge.loops.scalars import SCALARS
from knowledge.opgraph import Ref

ValueType = Literal["float", "double", "int64_t", "bool"]
Stage = Literal["unit", "row", "element", "final"]
Fold = Literal["sum", "max", "min", "prod"]

_RANK = {"bool": 0, "int64_t": 1, "float": 2, "double": 3}


class Refused(Exception):
    """These calls make no fused loop; the message says why in one plain sentence."""


def value_type(dtype: str) -> ValueType:
    """The C++ type in which a tensor's elements are computed.

    Raises:
        Refused: complex numbers and other rarities.
    """
    if dtype in ("float32", "float16", "bfloat16"):
        return "float"
    if dtype == "float64":
        return "double"
    if dtype in ("int64", "int32", "int16", "int8", "uint8"):
        return "int64_t"
    if dtype == "bool":
        return "bool"
    raise Refused(f"{dtype} has no place in a fused loop")


def promote(types: list[ValueType]) -> ValueType:
    """The type in which values of these types meet."""
    return max(types, key=_RANK.__getitem__)


@dataclass(frozen=True)
class Value:
    """One value of the loop, in static single assignment.

    `op` is a scalar operator's name, or one of `constant` (`number`), `count` (elements over
    `atoms`), `load` (`operand`, laid out over `atoms`), `gather` (`operand` at the column that
    args[0] says; args[1] then is the value to evaluate there), `fold` (reduce args[0] over the
    columns) and `total` (reduce args[0] over the whole domain). `stage` is where it is computed;
    `level` the sweep, for `row` and `element` values.
    """

    op: str
    args: tuple[int, ...]
    type: ValueType
    stage: Stage
    level: int = 0
    number: float | int | bool = 0
    operand: int = -1
    atoms: tuple[int, ...] = ()
    fold: Fold = "sum"
    hint: str = ""


@dataclass(frozen=True)
class Operand:
    """A tensor that the loop reads: which one, its dtype, and the atoms it spans, in order.

    `strides` has one for each atom where it is read as it lies, such as a half of a larger tensor;
    empty where it is dense, or made so.
    """

    ref: Ref
    dtype: str
    atoms: tuple[int, ...]
    strides: tuple[int, ...] = ()

    def runs_on(self, atom: int, after: int, sizes: tuple[int, ...]) -> bool:
        """Whether two neighbouring atoms that it spans are one run in its memory."""
        if not self.strides:
            return True
        stride = dict(zip(self.atoms, self.strides, strict=True))
        return stride[atom] == stride[after] * sizes[after]


@dataclass(frozen=True)
class Store:
    """A tensor that the loop writes: its name in the graph, its value in the loop, its layout."""

    ref: Ref
    value: int
    dtype: str
    layout: tuple[tuple[int, ...], ...]

    @property
    def atoms(self) -> tuple[int, ...]:
        """The atoms it spans, in order."""
        return tuple(atom for dim in self.layout for atom in dim)


@dataclass(frozen=True)
class Domain:
    """The index space: its atoms' sizes, outermost first; atoms [first, last) are a row's columns.

    `structured` says that something is reduced row by row, so that the columns are not ours to
    choose.
    """

    sizes: tuple[int, ...]
    first: int
    last: int
    structured: bool

    @property
    def outer(self) -> tuple[int, ...]:
        """Atoms outside the row."""
        return tuple(range(self.first))

    @property
    def columns(self) -> tuple[int, ...]:
        """Atoms of the row."""
        return tuple(range(self.first, self.last))

    @property
    def inner(self) -> tuple[int, ...]:
        """Atoms inside the row: neighbours in memory that belong to different rows."""
        return tuple(range(self.last, len(self.sizes)))

    @property
    def everything(self) -> tuple[int, ...]:
        """All atoms."""
        return tuple(range(len(self.sizes)))

    @property
    def rows(self) -> tuple[int, ...]:
        """Atoms that tell rows apart."""
        return self.outer + self.inner

    def count(self, atoms: tuple[int, ...]) -> int:
        """Number of elements over these atoms, at the traced sizes."""
        return prod(self.sizes[atom] for atom in atoms)


@dataclass(frozen=True)
class Loop:
    """One kernel: its domain, its values in order of computation, what it reads and writes."""

    domain: Domain
    values: tuple[Value, ...]
    operands: tuple[Operand, ...]
    stores: tuple[Store, ...]

    @property
    def dense(self) -> "Loop":
        """The same loop over operands that are made dense first."""
        operands = tuple(replace(operand, strides=()) for operand in self.operands)
        return replace(self, operands=operands)

    def together(self, atom: int, after: int) -> bool:
        """Whether two neighbouring atoms can be walked as one, by every tensor."""
        spans = [operand.atoms for operand in self.operands]
        spans += [store.atoms for store in self.stores]
        return all((atom in span) == (after in span) for span in spans) and all(
            operand.runs_on(atom, after, self.domain.sizes)
            for operand in self.operands
            if atom in operand.atoms
        )


@dataclass
class Builder:
    """Collects values; equal values are made once."""

    domain: Domain
    values: list[Value] = field(default_factory=list)
    operands: list[Operand] = field(default_factory=list)
    known: dict[Value, int] = field(default_factory=dict)
    hint: str = ""

    def add(self, value: Value) -> int:
        """The number of a value, which is made unless it was."""
        if value not in self.known:
            self.known[value] = len(self.values)
            self.values.append(value)
        return self.known[value]

    def constant(self, number: float | int | bool, kind: ValueType) -> int:
        """A number, in the given type."""
        return self.add(Value(op="constant", args=(), type=kind, stage="unit", number=number))

    def count(self, atoms: tuple[int, ...], kind: ValueType) -> int:
        """The number of elements over some atoms, known when the kernel runs."""
        return self.add(Value(op="count", args=(), type=kind, stage="unit", atoms=atoms))

    def load(
        self, ref: Ref, dtype: str, atoms: tuple[int, ...], strides: tuple[int, ...] = ()
    ) -> int:
        """The element of a tensor that belongs to the current position."""
        operand = self._operand(Operand(ref, dtype, atoms, strides))
        stage: Stage = "unit"
        if set(atoms) & set(self.domain.columns):
            stage = "element"
        elif atoms:
            stage = "row"
        return self.add(
            Value(
                op="load",
                args=(),
                type=value_type(dtype),
                stage=stage,
                operand=operand,
                atoms=atoms,
            )
        )

    def _operand(self, operand: Operand) -> int:
        if operand not in self.operands:
            self.operands.append(operand)
        return self.operands.index(operand)

    def cast(self, value: int, kind: ValueType) -> int:
        """The value in another type."""
        if self.values[value].type == kind:
            return value
        if self.values[value].op == "constant":
            number = self.values[value].number
            return self.constant(bool(number) if kind == "bool" else number, kind)
        return self._scalar("cast", (value,), kind)

    def op(self, name: str, *args: int, kind: ValueType | None = None) -> int:
        """A scalar operator on values, brought to one type first (but a `where`'s condition)."""
        types = [self.values[arg].type for arg in (args[1:] if name == "where" else args)]
        meeting = kind if kind is not None else promote(types)
        if SCALARS[name].floating and meeting in ("bool", "int64_t"):
            meeting = "float"
        first = [self.cast(args[0], "bool")] if name == "where" else []
        brought = [*first, *(self.cast(arg, meeting) for arg in args[len(first) :])]
        result: ValueType = "bool" if SCALARS[name].predicate else meeting
        return self._scalar(name, tuple(brought), result)

    def _scalar(self, name: str, args: tuple[int, ...], kind: ValueType) -> int:
        given = [self.values[arg] for arg in args]
        stages = {value.stage for value in given}
        stage: Stage = "unit"
        if "final" in stages:
            if stages & {"row", "element"}:
                raise Refused("a total over everything is needed again inside the loop")
            stage = "final"
        elif "element" in stages:
            stage = "element"
        elif "row" in stages:
            stage = "row"
        level = max((value.level for value in given), default=0)
        return self.add(
            Value(op=name, args=args, type=kind, stage=stage, level=level, hint=self.hint)
        )

    def fold(self, fold: Fold, value: int) -> int:
        """Reduce over the columns of a row."""
        given = self.values[value]
        if given.stage == "final":
            raise Refused("a total over everything is needed again inside the loop")
        return self.add(
            Value(op="fold", args=(value,), type=given.type, stage="row", level=given.level + 1,
                  fold=fold, hint=self.hint)
        )  # fmt: skip

    def total(self, fold: Fold, value: int, atoms: tuple[int, ...]) -> int:
        """Reduce over the whole domain (`atoms` = everything), or over all rows (the rows)."""
        given = self.values[value]
        if given.stage == "final":
            raise Refused("a total over everything is needed again inside the loop")
        return self.add(
            Value(op="total", args=(value,), type=given.type, stage="final", level=given.level,
                  fold=fold, atoms=atoms, hint=self.hint)
        )  # fmt: skip

    def gather(self, value: int, column: int) -> int:
        """The element value as it is at another column of the same row."""
        given = self.values[value]
        if self.values[column].stage not in ("unit", "row"):
            raise Refused("an index that changes along the row")
        level = max(given.level, self.values[column].level)
        return self.add(
            Value(op="gather", args=(column, value), type=given.type, stage="row", level=level)
        )
