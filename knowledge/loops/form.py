"""The fused-loop form: what one kernel computes, as values on a domain of outer x columns x inner.

A value lives on some axes of the domain; its level is the number of row reductions on its path, and
every level is one sweep over the row. Plain data; `knowledge.loops.cpp` prints it.
"""

from dataclasses import dataclass, field, replace
from math import isfinite, prod
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
    `atoms`), `position` (the index over `atoms`, or in the row), `load` (`operand`, laid out over
    `atoms`; `args` are the indices of its own extents), `within` (args[0] brought into [0, number);
    args[1] is the position that it follows), `gather` (`operand` at the column that args[0] says;
    args[1] then is the value to evaluate there), `fold` (reduce args[0] over the columns) and
    `total` (reduce args[0] over the whole domain). `stage` is where it is computed; `level` the
    sweep, for `row` and `element` values.
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
class Extent:
    """A dimension of an operand that is read at an index which the loop computes.

    It is as long as the atoms `like` together, or else of the traced `size` only.
    """

    size: int
    like: tuple[int, ...] = ()


@dataclass(frozen=True)
class Operand:
    """A tensor that the loop reads: which one, its dtype, and the atoms it spans, in order.

    `strides` has one for each atom where it is read as it lies, such as a half of a larger tensor;
    empty where it is dense, or made so. The atom -1 stands for extents[0], -2 for extents[1].
    """

    ref: Ref
    dtype: str
    atoms: tuple[int, ...]
    strides: tuple[int, ...] = ()
    extents: tuple[Extent, ...] = ()

    @property
    def own_atoms(self) -> tuple[int, ...]:
        """The atoms of the index space along which it is read in step."""
        return tuple(atom for atom in self.atoms if atom >= 0)

    def runs_on(self, atom: int, after: int, sizes: tuple[int, ...]) -> bool:
        """Whether two neighbouring atoms that it spans are one run in its memory."""
        if self.extents and self.atoms.index(after) != self.atoms.index(atom) + 1:
            return False
        if not self.strides:
            return True
        stride = dict(zip(self.atoms, self.strides, strict=True))
        return stride[atom] == stride[after] * sizes[after]


@dataclass(frozen=True)
class Store:
    """A tensor that the loop writes: its name in the graph, its value in the loop, its layout.

    With a `complaint` it is none of the graph's, but one number: above 0, an index was out of
    range, and the complaint is to be raised.
    """

    ref: Ref
    value: int
    dtype: str
    layout: tuple[tuple[int, ...], ...]
    complaint: str = ""

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
    """One kernel: its domain, its values in order of computation, what it reads and writes.

    Atoms in `fixed` must have the size that was traced.
    """

    domain: Domain
    values: tuple[Value, ...]
    operands: tuple[Operand, ...]
    stores: tuple[Store, ...]
    fixed: frozenset[int] = frozenset()

    @property
    def dense(self) -> "Loop":
        """The same loop over operands that are made dense first."""
        operands = tuple(replace(operand, strides=()) for operand in self.operands)
        return replace(self, operands=operands)

    def together(self, atom: int, after: int) -> bool:
        """Whether two neighbouring atoms can be walked as one, by every tensor."""
        spans = [operand.atoms for operand in self.operands]
        spans += [store.atoms for store in self.stores if not store.complaint]
        spans += [value.atoms for value in self.values if value.op == "position" and value.atoms]
        spans += [extent.like for o in self.operands for extent in o.extents if extent.like]
        return all((atom in span) == (after in span) for span in spans) and all(
            operand.runs_on(atom, after, self.domain.sizes)
            for operand in self.operands
            if atom in operand.atoms and after in operand.atoms
        )


@dataclass
class Builder:
    """Collects values; equal values are made once."""

    domain: Domain
    values: list[Value] = field(default_factory=list)
    numbers: dict[Operand, int] = field(default_factory=dict)
    known: dict[tuple[Value, str], int] = field(default_factory=dict)
    hint: str = ""
    fixed: set[int] = field(default_factory=set)
    complaints: dict[int, str] = field(default_factory=dict)

    @property
    def operands(self) -> list[Operand]:
        """What is read from outside, in the order of their numbers."""
        return list(self.numbers)

    def add(self, value: Value) -> int:
        """The number of a value, which is made unless it was."""
        # 0.0 and -0.0 are equal, and not the same.
        key = (value, repr(value.number))
        if key not in self.known:
            self.known[key] = len(self.values)
            self.values.append(value)
        return self.known[key]

    def constant(self, number: float | int | bool, kind: ValueType) -> int:
        """A number, in the given type."""
        if kind == "bool":
            number = bool(number)
        elif kind != "int64_t":
            number = float(number)
        elif isfinite(number):
            number = int(number)
        return self.add(Value(op="constant", args=(), type=kind, stage="unit", number=number))

    def count(self, atoms: tuple[int, ...], kind: ValueType) -> int:
        """The number of elements over some atoms, known when the kernel runs."""
        return self.add(Value(op="count", args=(), type=kind, stage="unit", atoms=atoms))

    def stage_of(self, atoms: tuple[int, ...]) -> Stage:
        """Where something that depends on these atoms is computed."""
        if set(atoms) & set(self.domain.columns):
            return "element"
        return "row" if atoms else "unit"

    def position(self, atoms: tuple[int, ...]) -> int:
        """The index that counts through some neighbouring atoms."""
        stage = self.stage_of(atoms)
        return self.add(Value(op="position", args=(), type="int64_t", stage=stage, atoms=atoms))

    def load(
        self, ref: Ref, dtype: str, atoms: tuple[int, ...], strides: tuple[int, ...] = ()
    ) -> int:
        """The element of a tensor that belongs to the current position."""
        return self.load_at(Operand(ref, dtype, atoms, strides), ())

    def load_at(self, operand: Operand, indices: tuple[int, ...]) -> int:
        """The element of a tensor at the current position, and at indices for its extents."""
        own = operand.own_atoms
        stage = self.meeting([self.stage_of(own), *(self.values[i].stage for i in indices)])
        level = max((self.values[index].level for index in indices), default=0)
        kind = value_type(operand.dtype)
        return self.add(
            Value(op="load", args=indices, type=kind, stage=stage, level=level,
                  operand=self._operand(operand), atoms=own)
        )  # fmt: skip

    def _operand(self, operand: Operand) -> int:
        return self.numbers.setdefault(operand, len(self.numbers))

    def cast(self, value: int, kind: ValueType) -> int:
        """The value in another type."""
        if self.values[value].type == kind:
            return value
        if self.values[value].op == "constant":
            return self.constant(self.values[value].number, kind)
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
        stage = self.meeting([value.stage for value in given])
        level = max((value.level for value in given), default=0)
        return self.add(
            Value(op=name, args=args, type=kind, stage=stage, level=level, hint=self.hint)
        )

    def meeting(self, given: list[Stage]) -> Stage:
        """Where something is computed that needs values of these stages.

        Raises:
            Refused: a total would be needed again inside the loop.
        """
        stages = set(given)
        if "final" in stages:
            if stages & {"row", "element"}:
                raise Refused("a total over everything is needed again inside the loop")
            return "final"
        if "element" in stages:
            return "element"
        return "row" if "row" in stages else "unit"

    def within(self, index: int, size: int, position: int) -> int:
        """An index that follows a position, brought into [0, size)."""
        given = self.values[index]
        return self.add(
            Value(op="within", args=(index, position), type="int64_t", stage=given.stage,
                  level=given.level, number=size)
        )  # fmt: skip

    def in_range(self, index: int, size: int, complaint: str) -> int:
        """An index that was read, or 0 where it is not in [0, size), which is complained of."""
        zero, end = self.constant(0, "int64_t"), self.constant(size, "int64_t")
        outside = self.op("or", self.op("lt", index, zero), self.op("ge", index, end))
        self.complaints[outside] = complaint
        return self.op("where", outside, zero, index)

    def complained(self) -> list[Store]:
        """For each kind of index that may be out of range, the number that says whether any was."""
        found = []
        for outside, complaint in self.complaints.items():
            bad = self.cast(outside, "int64_t")
            if self.values[bad].stage == "element":
                bad = self.total("max", bad, self.domain.everything)
            elif self.values[bad].stage == "row":
                bad = self.total("max", bad, self.domain.rows)
            ref = Ref(ref=f"outside_{self.values[outside].args[0]}")
            found.append(Store(ref, bad, "int64", (), complaint))
        return found

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
