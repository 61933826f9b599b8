"""The sweeps over a row: reductions, results and row buffers of one level each, as vector loops."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from knowledge.loops.form import Loop, Store, Value
from knowledge.loops.indices import Group, Indices
from knowledge.loops.needs import reached
from knowledge.loops.plan import PREFETCH_FROM, Options, Plan
from knowledge.loops.seams import Part, seams_of, turns_of
from knowledge.loops.spelling import indented, joined, start_of, stored
from knowledge.loops.values import Scope, Values

PREFETCH_BLOCK = 256
PREFETCH_AHEAD = 1024
# Halves that are converted at once in a sweep that reduces nothing: so few that their floats stay
# in registers. An addition took 1.58 ms with runs of 256 in memory, now 1.01, as eager.
HALVES_AT_ONCE = 32


class Sweeps:
    """Appends sweeps to the lines of a row."""

    def __init__(self, loop: Loop, at: Indices, plan: Plan, made: Values, options: Options) -> None:
        self.loop, self.at, self.plan, self.made = loop, at, plan, made
        self.options, self.values = options, loop.values

    def _accumulator(self, value: Value) -> str:
        """The type in which a fold or a total gathers one row."""
        if value.type == "float" and value.fold in ("sum", "prod") and self.plan.wide:
            return "double"
        return value.type

    def _declared(self, number: int, name: str) -> list[str]:
        value = self.values[number]
        kind = self._accumulator(value)
        start = start_of(value.fold, kind)
        if not self.at.lanes:
            return [f"{kind} {name} = {start};"]
        head = f"for (int64_t lane = 0; lane < {self.made.lane_end}; ++lane)"
        return [f"{kind} {name}[LANES];", f"{head} {name}[lane] = {start};"]

    def append(self, level: int) -> None:
        """Append one sweep over the row to the row's lines."""
        gathered = self._gathered(level)
        for number, name in gathered.items():
            self.made.row.lines += self._declared(number, name)
        if self.at.form == "turns":
            loops = self._in_turns(level, gathered)
        else:
            parts = seams_of(self.loop, self.at, self.made)
            loops = [line for part in parts for line in self._part(level, part, gathered)]
        self.made.row.lines += self._where_needed(loops)
        for number, name in gathered.items():
            if self.values[number].op == "fold":
                self._finish_fold(number, name)
            else:
                self.made.row.lines += self.added_to_total(number, name)
        for number, store in enumerate(self.loop.stores):
            if number in self.plan.staged and self.values[store.value].level == level:
                self.made.row.lines.append(self._streamed(number, store))

    @cached_property
    def _needed_where(self) -> tuple[int, bool] | None:
        """A row's condition, and whether it must hold, or nothing is read of what sweeps gather.

        So it is of losses that count for some rows only.
        """
        if any(map(self.plan.is_element_store, self.loop.stores)):
            return None
        roots = [store.value for store in self.loop.stores]
        chosen = [value.args for value in self.values if value.op == "where" and not self.at.lanes]
        # Of several the last: it chooses of what those before it have chosen.
        for condition, *branches in reversed(dict.fromkeys(chosen)):
            if self.values[condition].stage != "row" or self._needs_sweep([condition]):
                continue
            for spared, holds in zip(branches, (True, False), strict=True):
                without = {condition: not holds}
                if self._needs_sweep([spared]) and not self._needs_sweep(roots, without):
                    return condition, holds
        return None

    def _needs_sweep(self, roots: list[int], decided: Mapping[int, bool] | None = None) -> bool:
        """Whether these values are made of elements, or added up once for each."""
        numbers = reached(self.loop, roots, decided)
        found = [self.values[number] for number in numbers]
        return not numbers.isdisjoint(self.plan.element_totals) or any(
            value.op in ("fold", "gather") or value.stage == "element" for value in found
        )

    def _where_needed(self, lines: list[str]) -> list[str]:
        """A sweep's loops, for those rows alone of which anything is read."""
        if self._needed_where is None or not lines:
            return lines
        condition, holds = self._needed_where
        sign = "" if holds else "!"
        return [f"if ({sign}{self.made.use(condition, 'row')}) {{", *indented(lines), "}"]

    def _part(self, level: int, part: Part, gathered: dict[int, str]) -> list[str]:
        """The loops over one part of the row."""
        body = self._body(level, part, gathered, part.whole and not self.at.lanes)
        runs = bool(self.made.widened or self.made.narrowed)
        if runs and not gathered and not self._prefetches("count"):
            lines = self._at_once(body)
            rest = replace(part, begin=f"{self._limit()} / {HALVES_AT_ONCE} * {HALVES_AT_ONCE}")
            body = self._body(level, part, gathered, False)
            return [*lines, *self._column_loops(body, gathered, rest)]
        lines = self._column_loops(body, gathered, part)
        self.made.widened, self.made.narrowed = None, {}
        return lines

    def _body(self, level: int, part: Part, gathered: dict[int, str], in_runs: bool) -> list[str]:
        """What a sweep does for one element; halves taken a run at a time, or one by one."""
        self.made.level, self.made.sweep = level, Scope()
        self.made.widened, self.made.narrowed = {} if in_runs else None, {}
        self.made.widened_into = {}
        updates = self._results(level, part, gathered)
        return [*self.made.sweep.lines, *updates]

    def _results(self, level: int, part: Part, gathered: dict[int, str]) -> list[str]:
        """What is done with the values of one element, where a part's assumptions hold."""
        assumed = self.made.assumed
        self.made.assumed, self.made.cut = {**assumed, **part.assumed}, part.cut
        idle = self._idle_complaints()
        updates = [self._update(n, name) for n, name in gathered.items() if n not in idle]
        updates += self._element_stores(level)
        self.made.assumed, self.made.cut = assumed, ()
        return updates

    def _in_turns(self, level: int, gathered: dict[int, str]) -> list[str]:
        """The loops over the row, the elements of its innermost group side by side in one body.

        Nothing is stored before all is read: so neighbours are read, and written, together.
        """
        self.made.level, self.made.sweep = level, Scope()
        self.made.widened = None
        updates: list[str] = []
        for turn, part in enumerate(turns_of(self.loop, self.at)):
            self.made.take_turn(turn)
            updates += self._results(level, part, gathered)
        self.made.take_turn(None)
        body = [*self.made.sweep.lines, *updates]
        group, strips = self.at.columns[-2], not self.loop.domain.structured
        index, bounds = self.at.index(group), ("begin", "end") if strips else ("0", group.name)
        head = f"for (int64_t {index} = {bounds[0]}; {index} < {bounds[1]}; ++{index}) {{"
        pragma = f"#pragma omp simd{self._clauses(gathered)}"
        return self.around([pragma, head, *indented(body), "}"], self.at.columns[:-2])

    def _idle_complaints(self) -> set[int]:
        """Totals that complain of indices which nothing reads where the present assumptions hold.

        There an index's own place, no longer bounded, may lie outside of the tensor it is in.
        """
        if not self.made.assumed:
            return set()
        complaints = {store.value for store in self.loop.stores if store.complaint}
        roots = [store.value for store in self.loop.stores if not store.complaint]
        read = reached(self.loop, roots, self.made.assumed)
        return {total for total in complaints if not self._outside(total) & read}

    def _outside(self, total: int) -> set[int]:
        """The condition that a complaint is the total of: that an index is out of range."""
        return set(self.values[self.values[total].args[0]].args)

    def _gathered(self, level: int) -> dict[int, str]:
        """What a sweep reduces, by the name of the variable that gathers it."""
        found: dict[int, str] = {}
        for number, value in enumerate(self.values):
            if value.op == "fold" and self.values[value.args[0]].level == level:
                narrow = self._accumulator(value) == value.type
                found[number] = self.made.name_of(number) + ("" if narrow else "_wide")
        for number in self.plan.element_totals:
            if self.values[self.values[number].args[0]].level == level:
                found[number] = f"{self.made.name_of(number)}_part"
        return found

    def _update(self, number: int, name: str) -> str:
        value = self.values[number]
        element = self.made.use(value.args[0], "element")
        place = f"{name}[lane]" if self.at.lanes else name
        kind = self._accumulator(value)
        if kind != value.type:
            element = f"static_cast<{kind}>({element})"
        return f"{place} = {joined(value.fold, place, element)};"

    def _element_stores(self, level: int) -> list[str]:
        lines = []
        for number in [n for n in self.plan.kept if self.values[n].level == level]:
            text = self.made.use(number, "element")
            if self.made.is_widened_into_kept(number):
                continue
            lines.append(f"{self.made.kept_name(number)}[{self.made.kept_index()}] = {text};")
        for number, store in enumerate(self.loop.stores):
            if not self.plan.is_element_store(store) or self.values[store.value].level != level:
                continue
            value = self.made.use(store.value, "element")
            text = stored(store.dtype, value)
            name = self.made.store_names[number]
            if self.at.form == "tiles":
                lines.append(f"tile_{name}[{self.at.tile_place(store.atoms)}] = {text};")
                continue
            if number in self.plan.staged:
                lines.append(f"staged_{name}[{self.at.column()}] = {text};")
                continue
            pointer, offset = self.made.write_pointer(number), self.at.element_offset(store.atoms)
            if store.dtype == "float16" and offset == "col" and self.made.widened is not None:
                self.made.narrowed[f"wide_{name}"] = pointer
                lines.append(f"wide_{name}[col - begin] = {value};")
                continue
            lines.append(f"{pointer}[{offset}] = {text};")
        return lines

    def _column_loops(self, body: list[str], gathered: dict[int, str], part: Part) -> list[str]:
        """The loops over the row around a sweep's body; the innermost one is vector code."""
        if self.at.lanes:
            lines = self.made.lane_loop([*self.made.lane_indices(), *body], self.made.lane_end)
            return self.around(lines, self.at.columns)
        index, limit = self._index(), self._limit()
        pragma = f"#pragma omp simd{self._clauses(gathered)}"
        ahead = self._prefetches(limit) if part.whole else []
        if ahead or self.made.widened or self.made.narrowed:
            return self._in_blocks(index, limit, ahead, (pragma, body))
        begin, end = part.begin or "0", part.end or limit
        head = f"for (int64_t {index} = {begin}; {index} < {end}; ++{index}) {{"
        return self.around([pragma, head, *indented(body), "}"], self.at.columns[:-1])

    def _index(self) -> str:
        """The index of the innermost loop over a row."""
        return self.at.index(self.at.columns[-1]) if self.at.columns else "col"

    def _limit(self) -> str:
        """Where the innermost loop ends."""
        if self.at.flat:
            return "count"
        return self.at.columns[-1].name if self.at.columns else "1"

    def _at_once(self, body: list[str]) -> list[str]:
        """The loop over as many whole runs as there are; compilers keep such runs in registers."""
        size, index, limit = HALVES_AT_ONCE, self._index(), self._limit()
        sweep = [
            "#pragma omp simd",
            f"for (int64_t {index} = begin; {index} < begin + {size}; ++{index}) {{",
            *indented(body), "}",
        ]  # fmt: skip
        return [
            f"for (int64_t begin = 0; begin + {size} <= {limit}; begin += {size}) {{",
            *indented(self._converted(size, str(size), sweep)),
            "}",
        ]

    def _converted(self, size: int, count: str, lines: list[str]) -> list[str]:
        """Lines between the conversion of what they read and of what they write."""
        widened, narrowed = self.made.widened or {}, self.made.narrowed
        kept = self.made.widened_into
        return [
            *(f"float* {name} = {kept[name]} + begin;" if name in kept else f"float {name}[{size}];"
              for name in (*widened, *narrowed)),
            *(f"widen_halves({row} + begin, {count}, {name});" for name, row in widened.items()),
            *lines,
            *(f"narrow_halves({name}, {count}, {row} + begin);" for name, row in narrowed.items()),
        ]  # fmt: skip

    def around(self, lines: list[str], groups: tuple[Group, ...]) -> list[str]:
        """Loops over some groups around lines, the first group outermost."""
        for group in reversed(groups):
            index = self.at.index(group)
            head = f"for (int64_t {index} = 0; {index} < {group.name}; ++{index}) {{"
            lines = [head, *indented(lines), "}"]
        return lines

    def _prefetches(self, limit: str) -> list[str]:
        """Prefetch lines for one sweep, where arithmetic lies between the loads.

        There the hardware's own prefetcher falls behind. One sweep asks for what comes soon in its
        own row; of several, the costliest asks for the next row, its own being in cache by then.
        """
        if (
            not self.options.prefetch
            or len(self.at.columns) != 1
            or self.made.level != self.plan.prefetching_level()
        ):
            return []
        far = max(self.plan.roots) > 0
        everything = self.loop.domain.everything
        lines = []
        for number, operand in enumerate(self.loop.operands):
            if operand.atoms != everything or operand.dtype != "float32":
                continue
            if self.loop.domain.count(everything) < PREFETCH_FROM:
                continue
            pointer = self.made.read_pointer(number)
            distance = limit if far else str(PREFETCH_AHEAD)
            lines.append(
                f"__builtin_prefetch({pointer} + begin + ahead + {distance}, 0, {2 if far else 3});"
            )
        return lines

    def _in_blocks(
        self, index: str, limit: str, ahead: list[str], loop: tuple[str, list[str]]
    ) -> list[str]:
        pragma, body = loop
        size = PREFETCH_BLOCK
        asked = f"for (int64_t ahead = 0; ahead < {size}; ahead += 16) {{"
        sweep = [
            pragma, f"for (int64_t {index} = begin; {index} < end; ++{index}) {{",
            *indented(body), "}",
        ]  # fmt: skip
        return [
            f"for (int64_t begin = 0; begin < {limit}; begin += {size}) {{",
            f"    const int64_t end = {limit} - begin < {size} ? {limit} : begin + {size};",
            *(indented([asked, *indented(ahead), "}"]) if ahead else []),
            *indented(self._converted(size, "end - begin", sweep)),
            "}",
        ]

    def _clauses(self, gathered: dict[int, str]) -> str:
        operators = {"sum": "+", "prod": "*", "max": "nan_max", "min": "nan_min"}
        by_operator: dict[str, list[str]] = {}
        for number, name in gathered.items():
            by_operator.setdefault(operators[self.values[number].fold], []).append(name)
        return "".join(f" reduction({op} : {', '.join(ns)})" for op, ns in by_operator.items())

    def _finish_fold(self, number: int, accumulator: str) -> None:
        """Bring a gathered value back to its own type."""
        name, value = self.made.name_of(number), self.values[number]
        self.made.row.made[number] = name
        if accumulator == name:
            return
        narrow = f"static_cast<{value.type}>({accumulator}"
        if self.at.lanes:
            self.made.row.lines += [
                f"{value.type} {name}[LANES];",
                f"for (int64_t lane = 0; lane < {self.made.lane_end}; ++lane) "
                f"{name}[lane] = {narrow}[lane]);",
            ]
        else:
            self.made.row.lines.append(f"const {value.type} {name} = {narrow});")

    def total_type(self, number: int) -> str:
        """The type in which a total is gathered over rows."""
        value = self.values[number]
        return "double" if value.type == "float" and value.fold in ("sum", "prod") else value.type

    def added_to_total(self, number: int, part: str) -> list[str]:
        """Bring a row's part of a total to the block's."""
        value, name = self.values[number], f"block_{self.made.name_of(number)}"
        kind = self.total_type(number)
        if self.at.lanes:
            step = joined(value.fold, name, f"static_cast<{kind}>({part}[lane])")
            return [f"for (int64_t lane = 0; lane < lanes; ++lane) {name} = {step};"]
        return [f"{name} = {joined(value.fold, name, f'static_cast<{kind}>({part})')};"]

    def _streamed(self, number: int, store: Store) -> str:
        name = self.made.store_names[number]
        pointer = self.made.write_pointer(number)
        count = "count" if self.at.flat else " * ".join(group.name for group in self.at.columns)
        return f"stream_row({pointer}, staged_{name}, {count});"
