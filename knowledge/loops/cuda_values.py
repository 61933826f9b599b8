"""Values as statements of one CUDA thread: made on demand, in the scope they belong to, once."""

from collections.abc import Callable

from knowledge.loops.cuda_mathematics import spelled
from knowledge.loops.cuda_shape import CudaIndices, CudaPlan, Geometry, product_of
from knowledge.loops.form import Loop, Value
from knowledge.loops.spelling import STORAGE, indented, loaded, names_of, stored
from knowledge.loops.values import Scope, Values
from knowledge.program import variable

# Names that the printer gives, and CUDA's own.
_TAKEN = {
    "start", "item", "k", "in", "valid", "task", "turn", "half", "bfloat16", "lowest", "highest",
    "part", "parts", "Sum", "Product", "Largest", "Smallest", "Pack", "whole_of", "sigmoid",
    "threadIdx", "blockIdx", "blockDim", "gridDim", "warpSize", "min", "max", "rint", "torch",
    "neighbour", "strips", "columns", "inside", "from", "float_of", "bfloat16_of",
}  # fmt: skip


def cuda_names(wanted: list[str], prefix: str) -> list[str]:
    """Names of tensors as in the graph, unless C++, CUDA or the printer needs the word itself."""
    found: list[str] = []
    for name in names_of(wanted, prefix):
        ours = name in _TAKEN or name.startswith(("parts_", "kept_", "total_"))
        name = f"{name}_data" if ours else name
        while name in found:
            name += "_"
        found.append(name)
    return found


class CudaValues(Values):
    """The statements of one kernel under construction.

    `packs` are the reads of several neighbours at once that a step of a sweep begins with; where
    a row stays in registers, what is its own is read for all steps first (`early`: a tensor's name,
    its storage, the row's pointer), so that the reads are under way together. A fold that an
    earlier kernel gathered is put together where it is first needed, by `combine`.
    """

    def __init__(self, loop: Loop, at: CudaIndices, plan: CudaPlan, shape: Geometry) -> None:
        super().__init__(loop, at, plan)
        self.kept, self.kept_at, self.shape = {}, plan.kept_at, shape
        self.packs: list[str] = []
        self.early: dict[str, tuple[str, str]] = {}
        self.combine: Callable[[int], list[str]] | None = None
        # A row in registers is short: its columns are counted in 32 bits.
        self.end = "columns" if shape.items else product_of(at.columns)
        self._gathering = False
        self.operand_names = cuda_names([variable(operand.ref) for operand in loop.operands], "")
        self.store_names = cuda_names([variable(store.ref) for store in loop.stores], "out_")

    def use(self, number: int, place: str) -> str:
        """The expression for a value at a place: `unit`, `row`, `element` or `final`."""
        known = self.kept_at.get(number)
        kept = known is not None and known < self.level and place == "element"
        if kept and not self._gathering and number not in self.sweep.made:
            value, name = self.values[number], self.name_of(number)
            self.sweep.made[number] = name
            self.sweep.lines.append(
                f"const {value.type} {name} = {self.kept_name(number)}[{self.kept_index()}];"
            )
        return super().use(number, place)

    def kept_index(self) -> str:
        """The current element's place in a thread's registers."""
        return f"item * {self.shape.vector} + k" if self.shape.vector > 1 else "item"

    def is_packed(self, atoms: tuple[int, ...]) -> bool:
        """Whether neighbouring columns of a tensor are neighbours in memory."""
        packed = self.shape.vector > 1 and not self._gathering
        return packed and self.at.element_offset(atoms) == "col"

    def _is_own(self, atoms: tuple[int, ...]) -> bool:
        """Whether a row in registers has this for itself; other rows' bias is in cache anyway."""
        rows = set(self.loop.domain.rows)
        return self.shape.items > 0 and (not rows or bool(rows & set(atoms)))

    def _expression(self, number: int, place: str) -> str:
        return spelled(super()._expression(number, place))

    def _load(self, value: Value) -> str:
        operand = self.loop.operands[value.operand]
        name, storage = self.operand_names[value.operand], spelled(STORAGE[operand.dtype])
        if value.stage == "unit":
            return spelled(loaded(operand.dtype, f"{name}[0]"))
        if value.stage == "row":
            return spelled(loaded(operand.dtype, f"{name}[{self.at.row_offset(operand.atoms)}]"))
        pointer = self.row_pointer(name, f"const {storage}", self.at.row_offset(operand.atoms))
        if self.is_packed(operand.atoms) and self._is_own(operand.atoms):
            self.early[name] = (storage, pointer)
            return spelled(loaded(operand.dtype, f"{name}_packs[item].at[k]"))
        if self.is_packed(operand.atoms):
            place = "from" if self.shape.items else "start"
            line = (
                f"const Pack<{storage}> {name}_pack = load_pack({pointer} + {place}, "
                f"{self.end} - start);"
            )
            if line not in self.packs:
                self.packs.append(line)
            return spelled(loaded(operand.dtype, f"{name}_pack.at[k]"))
        offset = self.at.element_offset(operand.atoms)
        return spelled(loaded(operand.dtype, f"{pointer}[{offset}]"))

    def _made_in_row(self, number: int) -> str:
        value = self.values[number]
        if value.op == "fold" and number not in self.row.made and self.combine is not None:
            self.row.lines += self.combine(number)
            self.row.made[number] = self.name_of(number)
        return super()._made_in_row(number)

    def _gathered(self, number: int) -> str:
        """A row value that is an element at a column of its own; NaN where there is none."""
        value, name = self.values[number], self.name_of(number)
        column, target = value.args
        label = self.use(column, "row")
        outside = self.sweep, self.level
        # Evaluated anew, not read from what sweeps kept: it is one element only.
        self.sweep, self.level, self._gathering = Scope(), self.values[target].level, True
        result = self.use(target, "element")
        single = len(self.at.columns) == 1
        groups = [] if single else self.at.unravelled(self.at.columns, "label")
        body = ["const int64_t col = label;"] if single else groups
        body += [*self.sweep.lines, f"{name} = {result};"]
        self.sweep, self.level = outside
        self._gathering = False
        empty = "NAN" if value.type in ("float", "double") else "0"
        self.row.made[number] = name
        self.row.lines += [
            f"{value.type} {name} = {empty};",
            f"if (const int64_t label = {label}; "
            f"label >= 0 && label < {product_of(self.at.columns)}) {{",
            *indented(body),
            "}",
        ]
        return name

    def stored_as(self, dtype: str, text: str) -> str:
        """A computed value as the type it is stored in."""
        return spelled(stored(dtype, text))
