"""Prints a fused loop as C++: one function, rows in parallel, one vectorised sweep a level.

Three schedules: `flat` (pointwise work on one run of elements, in chunks), `rows` (one row a task),
and `lanes` (a task is a run of neighbouring rows, side by side in vector lanes: where what is
reduced is not innermost, or rows are short and go through tiles). `knowledge.loops.short_rows` says
which rows are short.
"""

from knowledge.loops.form import Loop, Refused, Store
from knowledge.loops.indices import Form, Indices
from knowledge.loops.lane_tiles import LaneTiles
from knowledge.loops.mathematics import helpers, reductions
from knowledge.loops.plan import CHUNK, Options, Plan
from knowledge.loops.seams import cases_of, row_conditions
from knowledge.loops.short_rows import form_of
from knowledge.loops.spelling import STORAGE, indented, joined, start_of, stored, sum_of
from knowledge.loops.sweeps import Sweeps
from knowledge.loops.values import Scope, Values

# Neighbouring rows that are done side by side: of 10 reductions, 128 was best or next to it in all,
# 64 up to twice as slow. All of them, where that leaves tasks for every thread of a usual machine:
# then memory is read from one end to the other.
LANES, FEWER_LANES, MOST_LANES = 128, 64, 1024
TASKS = 16
# What several sweeps read should stay in a core's second-level cache.
STRIP_BYTES = 512 << 10
# Short rows that are side by side in a tile; elements of a row whose pairs take turns.
TILE_LANES, STRIP = 64, 2048
BLOCKS = 256
PARALLEL_FROM = 16384


class Printer:
    """Prints one loop; `text` is the whole translation unit."""

    def __init__(self, loop: Loop, name: str, options: Options, form: Form = "plain") -> None:
        self.loop, self.name, self.options = loop, name, options
        self.values = loop.values
        self.at = Indices(loop, form)
        self.plan = Plan(loop, self.at, options)
        self.made = Values(loop, self.at, self.plan)
        self.sweeps = Sweeps(loop, self.at, self.plan, self.made, options)
        self.tiles = LaneTiles(loop, self.at, self.plan, self.made, options)
        # Rows that nothing is reduced over are long as a batch may be: several tasks share one.
        self.in_strips = form == "turns" and not loop.domain.structured

    def _row_block(self) -> list[str]:
        """Everything that is done for one row, chunk or strip: in one way, or one for each case."""
        conditions = row_conditions(self.loop, self.at)
        before = [self.made.use(number, "row") for number in conditions]
        known, lines = dict(self.made.row.made), [*self._task_head(), *self.made.row.lines]
        for assumed in cases_of(self.loop, conditions):
            self.made.row = Scope(made=dict(known))
            self.made.assumed = assumed
            block = self._row_lines()
            if not conditions:
                return [*lines, *block]
            own = [text for text, n in zip(before, conditions, strict=True) if assumed[n]][:1]
            first = "" if assumed == dict.fromkeys(conditions, True) else "} else "
            lines += [f"{first}if ({own[0]}) {{" if own else f"{first}{{", *indented(block)]
        self.made.assumed = {}
        return [*lines, "}"]

    def _row_lines(self) -> list[str]:
        """What is done for one row, chunk or strip under what is assumed."""
        self.made.row.lines += self.tiles.filled()
        for level in range(self.plan.levels):
            self.sweeps.append(level)
        for number in self.plan.row_totals:
            arg = self.values[number].args[0]
            text = self.made.use(arg, "row")
            part = text.removesuffix("[lane]") if self.values[arg].stage == "row" else text
            if self.at.lanes and self.values[arg].stage != "row":
                raise Refused("a total over rows of something that is the same in all of them")
            self.made.row.lines += self.sweeps.added_to_total(number, part)
        for number, store in enumerate(self.loop.stores):
            if self.plan.is_row_store(store):
                self.made.row.lines += self._row_store(number, store)
        self.made.row.lines += self.tiles.emptied()
        return self.made.row.lines

    def _row_store(self, number: int, store: Store) -> list[str]:
        text = stored(store.dtype, self.made.use(store.value, "row"))
        terms = [self.at.row_offset(store.atoms)]
        if self.at.lanes:
            terms.append(self.at.element_offset(store.atoms))
        lines = [
            *self.made.lane_indices(),
            f"{self.made.store_names[number]}[{sum_of(terms)}] = {text};",
        ]
        return self.made.lane_loop(lines, "lanes") if self.at.lanes else lines

    def _task_head(self) -> list[str]:
        if self.at.flat:
            size = self.at.columns[0].name if self.at.columns else "1"
            return [
                "const int64_t start = task * CHUNK;",
                f"const int64_t count = {size} - start < CHUNK ? {size} - start : CHUNK;",
            ]
        lines = []
        if self.in_strips:
            return self._strip_head()
        if self.at.lanes:
            lines += [
                "const int64_t row = task / strips;",
                "const int64_t first = task % strips * LANES;",
                f"const int64_t left = {self._inner()} - first;",
                "const int64_t lanes = left < LANES ? left : LANES;",
            ]
        if len(self.at.outer) > 1:
            lines += self.at.unravelled(self.at.outer, "row")
        return lines

    def _strip_head(self) -> list[str]:
        """The bounds of a strip, and of which row it is, unless loops count that."""
        size = self.at.columns[-2].name
        bounds = [
            "const int64_t begin = strip * STRIP;",
            f"const int64_t end = {size} - begin < STRIP ? {size} : begin + STRIP;",
        ]
        if not self.plan.totals:
            return bounds
        row = self.at.unravelled(self.at.outer, "row") if len(self.at.outer) > 1 else []
        numbers = ["const int64_t row = task / strips;", "const int64_t strip = task % strips;"]
        return [*numbers, *row, *bounds]

    def _inner(self) -> str:
        product = " * ".join(group.name for group in self.at.inner)
        return product if len(self.at.inner) == 1 else f"({product})"

    def _tasks(self) -> tuple[str, list[str]]:
        """The name of the task index, and the lines that count the tasks."""
        rows = " * ".join(group.name for group in self.at.outer) or "1"
        if self.at.flat:
            size = self.at.columns[0].name if self.at.columns else "1"
            return "task", [f"const int64_t tasks = ({size} + CHUNK - 1) / CHUNK;"]
        if self.in_strips:
            strips = f"const int64_t strips = ({self.at.columns[-2].name} + STRIP - 1) / STRIP;"
            return "task", [strips, f"const int64_t tasks = {rows} * strips;"]
        if self.at.lanes:
            strips = f"const int64_t strips = ({self._inner()} + LANES - 1) / LANES;"
            return "task", [strips, f"const int64_t tasks = {rows} * strips;"]
        return "row", [f"const int64_t tasks = {rows};"]

    def _buffers(self) -> list[str]:
        columns = " * ".join(group.name for group in self.at.columns) or "1"
        cells = f"({columns}) * LANES" if self.at.lanes else columns
        kept = [(self.made.kept_name(n), self.values[n].type, cells) for n in self.plan.kept]
        if self.at.form == "tiles":
            return self.tiles.buffers(kept)
        lines = [f"std::vector<{kind}> {name}_memory({size});" for name, kind, size in kept]
        lines += [f"{kind}* {name} = {name}_memory.data();" for name, kind, _ in kept]
        staged = "CHUNK" if self.at.flat else columns
        for number in self.plan.staged:
            name = f"staged_{self.made.store_names[number]}"
            lines += [
                f"std::vector<float> {name}_memory({staged});",
                f"float* {name} = {name}_memory.data();",
            ]
        return lines

    def _parallel(self, block: list[str]) -> list[str]:
        """The parallel region: tasks dealt to threads, in a fixed number of blocks for totals."""
        index, lines = self._tasks()
        elements = " * ".join(group.name for group in self.at.all) or "1"
        when = f"if (tasks > 1 && {elements} > {PARALLEL_FROM})"
        totals, dealt = self.plan.totals, "for"
        if totals:
            lines.append(f"const int64_t blocks = tasks < {BLOCKS} ? tasks : {BLOCKS};")
            lines += [
                f"std::vector<{self.sweeps.total_type(n)}> parts_{self.made.name_of(n)}(blocks);"
                for n in totals
            ]
            inner = self._blocked(index, block, totals)
        elif self.in_strips:
            # Loops that count do without the divisions that find a row by its number.
            strip = ["for (int64_t strip = 0; strip < strips; ++strip) {", *indented(block), "}"]
            inner = self.sweeps.around(strip, self.at.outer)
            dealt += f" collapse({len(self.at.outer) + 1})" if self.at.outer else ""
        else:
            head = f"for (int64_t {index} = 0; {index} < tasks; ++{index}) {{"
            inner = [head, *indented(block), "}"]
        buffers = self._buffers()
        if not buffers:
            return [*lines, f"#pragma omp parallel {dealt} schedule(static) {when}", *inner]
        fence = ["store_fence();"] if self.plan.staged else []
        region = [*buffers, "#pragma omp for schedule(static)", *inner, *fence]
        return [*lines, f"#pragma omp parallel {when}", "{", *indented(region), "}"]

    def _blocked(self, index: str, block: list[str], totals: list[int]) -> list[str]:
        starts = [
            f"{self.sweeps.total_type(n)} block_{self.made.name_of(n)} = "
            f"{start_of(self.values[n].fold, self.sweeps.total_type(n))};"
            for n in totals
        ]
        ends = [
            f"parts_{self.made.name_of(n)}[block] = block_{self.made.name_of(n)};" for n in totals
        ]
        return [
            "for (int64_t block = 0; block < blocks; ++block) {",
            *indented(starts),
            f"    for (int64_t {index} = tasks * block / blocks; "
            f"{index} < tasks * (block + 1) / blocks; ++{index}) {{",
            *indented(block, 2),
            "    }",
            *indented(ends),
            "}",
        ]

    def _combined(self) -> list[str]:
        """Totals put together from the blocks' parts, always in the same order."""
        lines: list[str] = []
        for number in self.plan.totals:
            value, name, kind = (
                self.values[number],
                self.made.name_of(number),
                self.sweeps.total_type(number),
            )
            step = joined(value.fold, f"{name}_all", "part")
            lines += [
                f"{kind} {name}_all = {start_of(value.fold, kind)};",
                f"for (const {kind} part : parts_{name}) {name}_all = {step};",
            ]
            self.made.final.made[number] = f"{name}_all"
            if kind != value.type:
                lines.append(f"const {value.type} {name} = static_cast<{value.type}>({name}_all);")
                self.made.final.made[number] = name
        return lines

    def part(self) -> str:
        """The translation unit of a function for some of the loop's work, on the calling thread.

        It takes `first`, `last` and `units` besides: the index space falls into so many equal
        parts, in order, and it does those from `first` up to `last`.

        Raises:
            Refused: a total over everything, or something that has no schedule.
        """
        if self.plan.totals:
            raise Refused("a total over everything is not known before all parts are")
        block = self._row_block()
        index, lines = self._tasks()
        if self.at.flat:
            size = self.at.columns[0].name if self.at.columns else "1"
            block[:2] = ["const int64_t count = end - start < CHUNK ? end - start : CHUNK;"]
            lines = [f"const int64_t end = {size} / units * last;"]
            head = f"for (int64_t start = {size} / units * first; start < end; start += CHUNK) {{"
        elif self.at.form == "tiles":
            if self.at.outer:
                raise Refused("short rows that are not all neighbours")
            block[:3] = ["const int64_t first = start, left = end - start;"]
            lines = [f"const int64_t end = {self._inner()} / units * last;"]
            head = (
                f"for (int64_t start = {self._inner()} / units * first; start < end; "
                "start += LANES) {"
            )
        else:
            each = "tasks / units"
            head = f"for (int64_t {index} = {each} * first; {index} < {each} * last; ++{index}) {{"
        fence = ["store_fence();"] if self.plan.staged else []
        body = [
            *self.made.unit.lines,
            *lines,
            *self._buffers(),
            head,
            *indented(block),
            "}",
            *fence,
        ]
        more = ["int64_t first", "int64_t last", "int64_t units"]
        parameters = ", ".join([*self._parameters(), *more])
        function = [f"static void {self.name}({parameters}) {{", *indented(body), "}"]
        return self._unit("\n".join(function) + "\n")

    def _parameters(self) -> list[str]:
        parameters = [
            f"const {STORAGE[o.dtype]}* {n}"
            for o, n in zip(self.loop.operands, self.made.operand_names, strict=True)
        ]
        parameters += [
            f"{STORAGE[s.dtype]}* {n}"
            for s, n in zip(self.loop.stores, self.made.store_names, strict=True)
        ]
        steps = [step for spacing in self.made.spacings for step in spacing.values()]
        # What takes turns has its traced size.
        known = self.at.columns[-1:] if self.at.form == "turns" else ()
        sizes = ["int64_t" if one in known else f"int64_t {one.name}" for one in self.at.all]
        return [*parameters, *sizes, *(f"int64_t {step}" for step in steps)]

    def _lanes(self) -> int:
        """How many neighbouring rows a task does side by side."""
        domain = self.loop.domain
        if self.at.form == "tiles":
            return TILE_LANES
        inner = domain.count(domain.inner)
        if self.plan.levels > 1 or self.plan.kept:
            buffers = max(len(self.loop.operands), 1) + len(self.plan.kept)
            strip = 4 * LANES * buffers * domain.count(domain.columns)
            return LANES if strip <= STRIP_BYTES else FEWER_LANES
        if LANES < inner <= MOST_LANES and domain.count(domain.rows) >= TASKS * inner:
            return MOST_LANES
        return LANES

    def _unit(self, function: str) -> str:
        return _unit(function, self.options, self._lanes())

    def text(self) -> str:
        """The translation unit.

        Raises:
            Refused: the loop asks for something that has no schedule.
        """
        block = self._row_block()
        has_tasks = (
            bool(self.plan.roots)
            or bool(self.plan.row_totals)
            or len(block) > len(self._task_head())
        )
        parallel = self._parallel(block) if has_tasks else []
        combined = self._combined()
        last = []
        for number, store in enumerate(self.loop.stores):
            if not self.plan.is_element_store(store) and not self.plan.is_row_store(store):
                text = stored(store.dtype, self.made.use(store.value, "final"))
                last.append(f"{self.made.store_names[number]}[0] = {text};")
        body = [*self.made.unit.lines, *parallel, *combined, *self.made.final.lines, *last]
        if self.at.form == "turns":
            group = self.at.columns[-1]
            size = self.loop.domain.count(group.atoms)
            body.insert(0, f"constexpr int64_t {group.name} = {size};")
        function = [
            f'extern "C" void {self.name}(', f"        {', '.join(self._parameters())}) {{",
            *indented(body), "}",
        ]  # fmt: skip
        return self._unit("\n".join(function) + "\n")


_FENCE = """
// Streaming stores become visible to other threads here.
static inline void store_fence() {
#if defined(__AVX__)
    _mm_sfence();
#endif
}
"""

# What the processor's own instructions are needed for.
_INTRINSICS = ("stream_row", "widen_halves", "narrow_halves", "into_lanes", "from_lanes")


def _unit(function: str, options: Options, lanes: int) -> str:
    """A kernel's function with what it needs above it."""
    # Reading headers takes most of a compilation: none that isn't needed.
    headers = ["#include <cmath>", "#include <cstdint>", "#include <cstring>"]
    headers += ["#include <vector>"] if "std::vector" in function else []
    if any(word in function for word in _INTRINSICS):
        headers += ["#if defined(__AVX__)", "#include <immintrin.h>", "#endif"]
    parts = ["\n".join(headers) + "\n", helpers(function, options.exp == "inline")]
    parts.append(reductions(function))
    if "store_fence" in function:
        parts.append(_FENCE)
    sizes = [
        f"constexpr int64_t {n} = {v};\n"
        for n, v in (("CHUNK", CHUNK), ("LANES", lanes), ("STRIP", STRIP))
        if n in function
    ]
    return "".join([*parts, "\n" if sizes else "", *sizes, "\n", function])


def print_cpp(loop: Loop, name: str, options: Options) -> str | Refused:
    """The loop as C++; a `Refused` where it has no schedule."""
    try:
        return Printer(loop, name, options, form_of(loop)).text()
    except Refused as refusal:
        return refusal
