"""One CUDA kernel of a loop under construction: sweeps, what they gather, where they write."""

from dataclasses import dataclass

from knowledge.loops.cuda_columns import ColumnLoop, needed
from knowledge.loops.cuda_mathematics import FOLDS, spelled
from knowledge.loops.cuda_shape import CudaIndices, CudaPlan, Geometry, product_of
from knowledge.loops.cuda_values import CudaValues
from knowledge.loops.form import Loop, Store, Value
from knowledge.loops.plan import Options
from knowledge.loops.spelling import STORAGE, indented, joined, start_of
from knowledge.loops.values import Scope


@dataclass(frozen=True)
class Design:
    """What all kernels of a loop share: positions, sweeps, threads, options."""

    loop: Loop
    at: CudaIndices
    plan: CudaPlan
    shape: Geometry
    options: Options

    @property
    def phased(self) -> bool:
        """Whether each sweep is a kernel of its own, because rows are shared among blocks."""
        folds = any(value.op == "fold" for value in self.loop.values)
        return self.shape.spread and folds

    def total_type(self, number: int) -> str:
        """The type in which the blocks' parts of a total are put together."""
        value = self.loop.values[number]
        return "double" if value.type == "float" and value.fold in ("sum", "prod") else value.type

    def kind(self, value: Value) -> str:
        """The type in which one thread gathers."""
        wide = value.type == "float" and value.fold in ("sum", "prod") and self.plan.wide
        return "double" if wide else value.type


class KernelBody:
    """The lines of one kernel, which does some of the sweeps and maybe what comes once a row."""

    def __init__(self, design: Design, levels: range, rows: bool) -> None:
        self.design, self.loop, self.at = design, design.loop, design.at
        self.plan, self.shape, self.values = design.plan, design.shape, design.loop.values
        self.levels, self.rows = levels, rows
        self.made = CudaValues(self.loop, self.at, self.plan, self.shape)
        self.totals: list[int] = []
        if design.phased:
            self.made.combine = self._combined

    def lines(self) -> list[str]:
        """The statements; empty where the kernel has nothing to do."""
        for level in self.levels:
            self._sweep(level)
        if self.rows:
            self._once_a_row()
        body = self.made.row.lines
        if not body:
            return []
        starts, ends = [], []
        for number in self.totals:
            value, name = self.values[number], self.made.name_of(number)
            kind = self.design.kind(value)
            starts.append(f"{kind} total_{name} = {start_of(value.fold, kind)};")
            ends += self._written_part(number)
        if self.shape.items and self.plan.levels:
            starts.insert(0, f"const int columns = {product_of(self.at.columns)};")
        return [*self.made.unit.lines, *starts, *self._over_tasks(body), *ends]

    # Sweeps

    def _sweep(self, level: int) -> None:
        """Append one sweep over the row to the row's lines."""
        made = self.made
        made.level, made.sweep, made.packs, made.early = level, Scope(), [], {}
        loop = ColumnLoop(made, self.shape)
        folds = [
            number
            for number, value in enumerate(self.values)
            if value.op == "fold" and self.values[value.args[0]].level == level
        ]
        loop.inside += [self._update(number, self._gatherer(number)) for number in folds]
        for number in self.plan.element_totals:
            if self.values[self.values[number].args[0]].level == level:
                loop.inside.append(self._total_update(number, "element"))
        kept = [n for n, made_at in self.plan.kept_at.items() if made_at == level]
        loop.always += [
            f"{made.kept_name(n)}[{made.kept_index()}] = {made.use(n, 'element')};" for n in kept
        ]
        self._element_stores(level, loop)
        loop.values = made.sweep.lines
        size = self.shape.items * self.shape.vector
        made.row.lines += [f"{self.values[n].type} {made.kept_name(n)}[{size}];" for n in kept]
        for number in folds:
            value = self.values[number]
            kind = self.design.kind(value)
            made.row.lines.append(f"{kind} {self._gatherer(number)} = {self._start(value)};")
        made.row.lines += loop.lines()
        for number in folds:
            made.row.lines += self._finished(number)

    def _start(self, value: Value) -> str:
        return start_of(value.fold, self.design.kind(value))

    def _gatherer(self, number: int) -> str:
        return f"{self.made.name_of(number)}_own"

    def _update(self, number: int, name: str) -> str:
        value = self.values[number]
        element, kind = self.made.use(value.args[0], "element"), self.design.kind(value)
        if kind != self.values[value.args[0]].type:
            element = f"static_cast<{kind}>({element})"
        return f"{name} = {joined(value.fold, name, element)};"

    def _total_update(self, number: int, place: str) -> str:
        """Add to a total what belongs to this row, if it is one."""
        value, name = self.values[number], f"total_{self.made.name_of(number)}"
        if number not in self.totals:
            self.totals.append(number)
        arg = self.made.use(value.args[0], place)
        kind = self.design.kind(value)
        if kind != self.values[value.args[0]].type:
            arg = f"static_cast<{kind}>({arg})"
        guard = "if (valid) " if place == "element" and self._guarded else ""
        return f"{guard}{name} = {joined(value.fold, name, arg)};"

    def _element_stores(self, level: int, loop: ColumnLoop) -> None:
        """Write elements one by one, or in packs of them."""
        for number, store in enumerate(self.loop.stores):
            if not self.plan.is_element_store(store) or self.values[store.value].level != level:
                continue
            name, storage = self.made.store_names[number], spelled(STORAGE[store.dtype])
            text = self.made.stored_as(store.dtype, self.made.use(store.value, "element"))
            pointer = self.made.row_pointer(name, storage, self.at.row_offset(store.atoms))
            guard = "if (valid) " if self._guarded else ""
            if self.made.is_packed(store.atoms):
                left = f"{self.made.end} - start"
                self.made.packs.append(f"Pack<{storage}> {name}_pack;")
                loop.always.append(f"{name}_pack.at[k] = {text};")
                loop.after.append(f"{guard}store_pack({pointer} + start, {name}_pack, {left});")
            else:
                offset = self.at.element_offset(store.atoms)
                loop.inside.append(f"{guard}{pointer}[{offset}] = {text};")

    @property
    def _guarded(self) -> bool:
        """Whether threads may stand beside the last row, with nothing of their own to do."""
        return self.shape.kind != "flat" and self.shape.beside > 1

    def _along(self) -> tuple[str, str]:
        return ColumnLoop(self.made, self.shape).along()

    # What is gathered

    def _over(self, value: Value, name: str) -> str:
        """What the threads along a row hold, joined."""
        fold = FOLDS[value.fold]
        if self.shape.along == 1:
            return name
        if self.shape.kind == "lanes":
            return f"over_column<{fold}, {self.shape.threads}>({name})"
        how = "over_block" if self.shape.along > 32 else "over_team"
        return f"{how}<{fold}>({name})"

    def _finished(self, number: int) -> list[str]:
        """After a sweep: the fold where blocks do whole rows, else this block's part of it."""
        value, name = self.values[number], self.made.name_of(number)
        kind, own = self.design.kind(value), self._gatherer(number)
        joined_up = self._over(value, own)
        if not self.design.phased:
            self.made.row.made[number] = name
            if kind != value.type:
                joined_up = f"static_cast<{value.type}>({joined_up})"
            return [f"const {value.type} {name} = {joined_up};"]
        thread, _ = self._along()
        guard = " && valid" if self._guarded else ""
        rows = product_of((*self.at.outer, *self.at.inner))
        place = f"parts_{name}[int64_t(blockIdx.y) * {_term(rows)} + {self._row_number()}]"
        return [
            f"{own} = {joined_up};",
            f"if ({thread} == 0{guard}) {{",
            f"    {place} = {own};",
            "}",
        ]

    def _row_number(self) -> str:
        if not self.at.strips:
            return "row" if self.at.outer else "0"
        return f"row * {_term(product_of(self.at.inner))} + in" if self.at.outer else "in"

    def _combined(self, number: int) -> list[str]:
        """A fold put together from the parts that the blocks of an earlier kernel wrote."""
        value, name = self.values[number], self.made.name_of(number)
        kind, own = self.design.kind(value), self._gatherer(number)
        thread, threads = self._along()
        rows = product_of((*self.at.outer, *self.at.inner))
        place = f"parts_{name}[int64_t(part) * {_term(rows)} + {self._row_number()}]"
        text = self._over(value, own)
        text = f"static_cast<{value.type}>({text})" if kind != value.type else text
        return [
            f"{kind} {own} = {self._start(value)};",
            f"for (int part = {thread}; part < parts; part += {threads}) {{",
            f"    {own} = {joined(value.fold, own, place)};",
            "}",
            f"const {value.type} {name} = {text};",
        ]

    def _written_part(self, number: int) -> list[str]:
        """At the end of a block: its part of a total."""
        value, name = self.values[number], self.made.name_of(number)
        kind, own = self.design.total_type(number), f"total_{name}"
        if kind != self.design.kind(value):
            own = f"static_cast<{kind}>({own})"
        block = "blockIdx.y * gridDim.x + blockIdx.x" if self.shape.spread else "blockIdx.x"
        return [
            f"const {kind} {name}_block = over_block<{FOLDS[value.fold]}>({own});",
            "if (threadIdx.x == 0 && threadIdx.y == 0) {",
            f"    parts_{name}[{block}] = {name}_block;",
            "}",
        ]

    # Rows

    def _once_a_row(self) -> None:
        thread, _ = self._along()
        once = [f"{thread} == 0"] + (["valid"] if self._guarded else [])
        lines = []
        for number in self.plan.row_totals:
            lines.append(self._total_update(number, "row"))
        for number, store in enumerate(self.loop.stores):
            if self.plan.is_row_store(store):
                lines.append(self._row_store(number, store))
        if lines:
            if self.shape.spread and not self.design.phased:
                once.append("blockIdx.y == 0")
            self.made.row.lines += [f"if ({' && '.join(once)}) {{", *indented(lines), "}"]

    def _row_store(self, number: int, store: Store) -> str:
        text = self.made.stored_as(store.dtype, self.made.use(store.value, "row"))
        where = self.at.row_offset(store.atoms) or "0"
        return f"{self.made.store_names[number]}[{where}] = {text};"

    def _over_tasks(self, body: list[str]) -> list[str]:
        """A loop over the rows of a block, with the indices that its lines need."""
        if self.shape.kind == "flat":
            return body
        rows = product_of(self.at.outer)
        before: list[str] = []
        if self.at.strips:
            before, head, own = self._strip_lines()
        elif not self._guarded:
            head, own = f"for (int64_t row = blockIdx.x; row < {rows}; row += gridDim.x) {{", []
        else:
            first = f"for (int64_t task = blockIdx.x; task * blockDim.y < {rows};"
            head = f"{first} task += gridDim.x) {{"
            own = [
                "const int64_t turn = task * blockDim.y + threadIdx.y;",
                f"const bool valid = turn < {rows};",
                f"const int64_t row = valid ? turn : {rows} - 1;",
            ]
        if len(self.at.outer) > 1:
            own += self.at.unravelled(self.at.outer, "row")
        if len(self.at.inner) > 1:
            own += self.at.unravelled(self.at.inner, "in")
        return [*before, head, *indented([*needed(own, body), *body]), "}"]

    def _strip_lines(self) -> tuple[list[str], str, list[str]]:
        inner = product_of(self.at.inner)
        tasks = _times(product_of(self.at.outer), "strips")
        before = [f"const int64_t strips = ({inner} + blockDim.x - 1) / blockDim.x;"]
        head = f"for (int64_t task = blockIdx.x; task < {tasks}; task += gridDim.x) {{"
        lines = [
            "const int64_t row = whole_of(task, strips);",
            "const int64_t neighbour = (task - row * strips) * blockDim.x + threadIdx.x;",
            f"const bool valid = neighbour < {inner};",
            f"const int64_t in = valid ? neighbour : {inner} - 1;",
        ]
        return before, head, lines


def _times(left: str, right: str) -> str:
    return right if left == "1" else f"{left} * {right}"


def _term(product: str) -> str:
    return f"({product})" if " " in product else product
