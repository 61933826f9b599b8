"""How the threads of a CUDA kernel lie over a loop, and what they keep in registers.

A *task* is one row, or in `lanes` a strip of neighbouring rows; a block does one or several tasks
at a time. Some of its threads walk along the columns of a row, the others stand beside them.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from knowledge.loops.form import Loop
from knowledge.loops.indices import Group, Indices, Spacing
from knowledge.loops.needs import is_costly
from knowledge.loops.plan import Options, Plan

# Rows up to this length are done by a warp or less, several rows a block, if there are many.
WARP_ROW, MANY_ROWS = 512, 1024
# Registers that a thread may spend on what it keeps of a row: 1024 threads have 64 each.
KEPT_REGISTERS, KEPT_IN_BLOCK = 64, 24 << 10
# A GPU of 132 multiprocessors, four blocks each: fewer tasks than half of that are split.
BLOCKS = 528
SPLIT_ELEMENTS, SPREAD_THREADS = 1 << 15, 256
FLAT_THREADS, MOST_THREADS = 256, 1024


@dataclass(frozen=True)
class CudaWish:
    """What can be tuned of the threads: 0 means by the sizes that were traced.

    `threads` walk along one row; `keep` says whether a row that fits stays in registers between
    the sweeps, or is read again (from the caches, for the most part).
    """

    threads: int = 0
    keep: Literal["registers", "nothing"] = "registers"


@dataclass(frozen=True)
class Geometry:
    """The block of a kernel.

    `along` threads walk the columns of one row, `beside` is the number of rows side by side. Each
    takes `vector` neighbouring columns at once. `items` is how many such steps a row has at most,
    where it is kept in registers; 0 where it is not. `spread` says that blockIdx.y shares the
    columns of a row among blocks; where rows are reduced then, each sweep is a kernel of its own.
    """

    kind: Literal["flat", "rows", "lanes"]
    along: int
    beside: int
    vector: int
    items: int
    spread: bool

    @property
    def block(self) -> tuple[int, int]:
        """The threads of a block in x and y."""
        return (self.beside, self.along) if self.kind == "lanes" else (self.along, self.beside)

    @property
    def threads(self) -> int:
        """The threads of a block."""
        return self.along * self.beside

    @property
    def capacity(self) -> int:
        """The longest row that stays in registers."""
        return self.along * self.vector * self.items


class CudaIndices(Indices):
    """Positions as one thread sees them: `row`, `col` and, for neighbouring rows, `in`."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.strips = self.lanes
        # The shared printer of values writes arrays of lanes; here a lane is a thread.
        self.lanes = False

    def row_offset(self, atoms: tuple[int, ...], spacing: Spacing | None = None) -> str:
        """Where a row starts in a tensor."""
        return " + ".join(self._terms(atoms, (*self.outer, *self.inner)))

    def element_offset(self, atoms: tuple[int, ...], spacing: Spacing | None = None) -> str:
        """Where an element lies after its row's start."""
        return " + ".join(self._terms(atoms, self.columns)) or "0"

    def place(self, group: Group) -> str:
        """The index along a group: threads count from the beginning of everything."""
        return self.index(group)

    def unravelled(self, groups: tuple[Group, ...], flat: str) -> list[str]:
        """The indices of several groups from the one that counts through all of them."""
        lines, rest = [], flat
        for position, group in enumerate(groups[:-1]):
            after = product_of(groups[position + 1 :])
            index = self.index(group)
            lines.append(f"const int64_t {index} = whole_of({rest}, {after});")
            left = f"{rest} - {index} * {f'({after})' if ' ' in after else after}"
            rest = self.index(groups[-1]) if position == len(groups) - 2 else f"{index}_rest"
            lines.append(f"const int64_t {rest} = {left};")
        return lines


class CudaPlan(Plan):
    """A loop's sweeps, and which values a thread keeps in registers from one to the next.

    `kept_at` says in which sweep such a value is made.
    """

    def __init__(self, loop: Loop, at: Indices, options: Options, registers: bool) -> None:
        super().__init__(loop, at, options)
        # Hundreds of threads share a sum, and what each adds up is short.
        self.wide = options.accumulate == "double"
        self.kept_at: dict[int, int] = {}
        self._last: dict[int, int] = {}
        if registers:
            made: dict[int, int] = {}
            for level in sorted(self.roots):
                seen: set[int] = set()
                for number in self.roots[level]:
                    self._walk(number, level, made, seen)
                made = {**dict.fromkeys(seen, level), **made}

    def _keep(self, number: int, level: int, seen: set[int]) -> None:
        """Row buffers in memory are for CPUs."""

    def _walk(self, number: int, level: int, made: dict[int, int], seen: set[int]) -> None:
        """Find what a sweep makes, and what it finds made by an earlier one."""
        value = self.values[number]
        if value.stage != "element" or number in seen:
            return
        if made.get(number, level) < level and number in self._worth_keeping:
            self.kept_at[number], self._last[number] = made[number], level
            return
        seen.add(number)
        for arg in value.args:
            self._walk(arg, level, made, seen)

    @cached_property
    def _worth_keeping(self) -> frozenset[int]:
        """Costly values, what is made of them, and what comes from memory for this row alone."""
        rows = set(self.loop.domain.rows)
        found: set[int] = set()
        for number, value in enumerate(self.values):
            below = (
                arg in found
                and self.values[arg].stage == "element"
                and self.values[arg].op != "load"
                for arg in value.args
            )
            is_own_load = value.op == "load" and (not rows or bool(rows & set(value.atoms)))
            if is_own_load or (value.op != "load" and (is_costly(value) or any(below))):
                found.add(number)
        return frozenset(found)

    def kept_registers(self) -> int:
        """Registers for each column that a thread holds, where most is kept at a time."""
        weights = {n: 2 if self.values[n].type in ("double", "int64_t") else 1 for n in self._last}
        live = [
            sum(weights[n] for n in weights if self.kept_at[n] < level <= self._last[n])
            for level in range(self.levels)
        ]
        return max(live, default=0)


def product_of(groups: tuple[Group, ...]) -> str:
    """The number of elements over some groups, as an expression."""
    return " * ".join(group.name for group in groups) or "1"


def power_of_two(number: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << max(0, number - 1).bit_length()


def choose(loop: Loop, at: CudaIndices, plan: CudaPlan, wish: CudaWish) -> Geometry:
    """The threads for a loop at the sizes that were traced; other sizes stay right."""
    if at.flat:
        return Geometry("flat", wish.threads or FLAT_THREADS, 1, 4, 0, spread=False)
    shape = _lanes(loop, wish) if at.strips else _rows(loop, at, plan, wish)
    if _should_spread(loop, shape):
        most = wish.threads or SPREAD_THREADS
        return replace(shape, spread=True, along=min(shape.along, most))
    return _with_registers(loop, plan, shape) if wish.keep == "registers" else shape


def _rows(loop: Loop, at: CudaIndices, plan: CudaPlan, wish: CudaWish) -> Geometry:
    columns = loop.domain.count(loop.domain.columns)
    single = len(at.columns) == 1
    vector = 4 if single and columns >= 128 else 1
    steps = -(-columns // vector)
    if wish.threads:
        along = wish.threads
    elif not loop.domain.structured:
        along = min(FLAT_THREADS, power_of_two(steps))
    elif columns <= WARP_ROW and (steps <= 32 or loop.domain.count(loop.domain.outer) >= MANY_ROWS):
        along = min(32, power_of_two(steps))
    else:
        along = min(1024, max(64, power_of_two(-(-columns // 16))))
    folded = loop.domain.structured and along > 32
    beside = 1 if folded else max(1, (128 if loop.domain.structured else FLAT_THREADS) // along)
    # Shuffles want whole warps.
    beside = max(beside, 32 // along)
    return Geometry("rows", along, beside, vector, 0, spread=False)


def _lanes(loop: Loop, wish: CudaWish) -> Geometry:
    columns = loop.domain.count(loop.domain.columns)
    inner = loop.domain.count(loop.domain.inner)
    along = wish.threads or min(64 if inner < 8 else 32, power_of_two(-(-columns // 8)))
    along = min(along, 256)
    beside = min(power_of_two(inner), 128, max(8, 512 // along), MOST_THREADS // along)
    beside = max(beside, -(-32 // along))
    return Geometry("lanes", along, beside, 1, 0, spread=False)


def _should_spread(loop: Loop, shape: Geometry) -> bool:
    """Whether too few blocks would do too much each."""
    domain = loop.domain
    columns = domain.count(domain.columns)
    tasks = -(-domain.count(domain.outer) // shape.beside)
    if shape.kind == "lanes":
        tasks = domain.count(domain.outer) * -(-domain.count(domain.inner) // shape.beside)
    long = columns >= 8 * shape.along * shape.vector
    return tasks < BLOCKS // 2 and long and domain.count(domain.everything) >= SPLIT_ELEMENTS


def _with_registers(loop: Loop, plan: CudaPlan, shape: Geometry) -> Geometry:
    columns = loop.domain.count(loop.domain.columns)
    items = -(-columns // (shape.along * shape.vector))
    needed = plan.kept_registers() * items * shape.vector
    if not 0 < needed <= min(KEPT_REGISTERS, KEPT_IN_BLOCK // shape.threads):
        return shape
    return replace(shape, items=items)
