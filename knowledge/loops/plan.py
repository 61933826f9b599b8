"""Which sweep computes what: the values each one makes, and those worth keeping for later ones."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from knowledge.loops.form import Loop, Store
from knowledge.loops.indices import Indices
from knowledge.loops.needs import is_costly

CHUNK = 8192
LONG_ROW = 16384
# Elements below which all is in cache anyway.
PREFETCH_FROM = 1 << 20


@dataclass(frozen=True)
class Options:
    """What can be tuned without changing what is computed.

    `exp`: inline polynomials, or the library's functions. `accumulate`: the type in which a row is
    summed. `streaming`: write large results past the caches. `prefetch`: ask for what the next row,
    or the next part of a long one, will need.
    """

    exp: Literal["inline", "libm"] = "inline"
    accumulate: Literal["float", "double"] = "float"
    streaming: bool = False
    prefetch: bool = True


class Plan:
    """A loop's sweeps.

    `roots` holds, for each level, the element values its sweep must make; `kept` the values that go
    into a row buffer for later sweeps. `element_totals` are gathered inside sweeps, `row_totals`
    once a row. `staged` are the stores that go past the caches,
    `halves` the loads of float16 that are kept for being converted.
    """

    def __init__(self, loop: Loop, at: Indices, options: Options) -> None:
        self.loop, self.values = loop, loop.values
        everything, rows = set(loop.domain.everything), set(loop.domain.rows)
        by_row = loop.domain.structured and everything == rows
        totals = [number for number, value in enumerate(self.values) if value.op == "total"]
        self.element_totals = [
            number
            for number in totals
            if set(self.values[number].atoms) == everything and not by_row
        ]
        self.row_totals = [number for number in totals if number not in self.element_totals]
        self.roots: dict[int, list[int]] = {}
        self.kept: dict[int, None] = {}
        self._find_roots()
        read_again = at.form == "tiles" or not at.lanes
        self.halves = self._halves_read_again() if read_again else frozenset()
        for level in range(max(self.roots, default=-1), -1, -1):
            seen: set[int] = set()
            for number in self.roots.setdefault(level, []):
                self._keep(number, level, seen)
        self.wide = options.accumulate == "double" or (
            loop.domain.structured and loop.domain.count(loop.domain.columns) > LONG_ROW
        )
        self.staged = tuple(
            number
            for number, store in enumerate(loop.stores)
            if options.streaming and self._can_stream(store, at)
        )

    @property
    def levels(self) -> int:
        """How many sweeps there are."""
        return max(self.roots, default=-1) + 1

    @property
    def totals(self) -> list[int]:
        """Everything that is reduced over all rows."""
        return [*self.element_totals, *self.row_totals]

    def is_element_store(self, store: Store) -> bool:
        """Whether a store is written in a sweep, element by element."""
        spans = bool(set(store.atoms) & set(self.loop.domain.columns))
        return spans or self.values[store.value].stage == "element"

    def is_row_store(self, store: Store) -> bool:
        """Whether a store is written once a row."""
        return not self.is_element_store(store) and (
            bool(store.atoms) or self.values[store.value].stage == "row"
        )

    def prefetching_level(self) -> int:
        """The sweep with the most arithmetic, which has the time to ask for what comes next."""
        costs = {level: self._cost(roots) for level, roots in self.roots.items()}
        return max(costs, key=lambda level: (costs[level], level))

    def _find_roots(self) -> None:
        def add(number: int) -> None:
            self.roots.setdefault(self.values[number].level, []).append(number)

        for value in self.values:
            if value.op == "fold":
                add(value.args[0])
        for number in self.element_totals:
            add(self.values[number].args[0])
        for store in self.loop.stores:
            if self.is_element_store(store):
                add(store.value)

    def _keep(self, number: int, level: int, seen: set[int]) -> None:
        """Keep what is costly and made in an earlier sweep than `level`, closest to its use."""
        value = self.values[number]
        if value.stage != "element" or number in self.kept or number in seen:
            return
        seen.add(number)
        # A std::vector<bool> has no data to point to; what a bool is made of is kept instead.
        again = number in self.halves or number in self._costly_paths
        if value.level < level and value.type != "bool" and again:
            self.kept[number] = None
            self.roots.setdefault(value.level, []).append(number)
            return
        for arg in value.args:
            self._keep(arg, level, seen)

    def _halves_read_again(self) -> frozenset[int]:
        """Loads of float16 that the first sweep needs and a later one needs too.

        They are converted once: a layer norm that did it in each of its three sweeps took 0.57 of
        eager's speed.
        """
        if self.loop.domain.count(self.loop.domain.columns) > LONG_ROW:
            return frozenset()
        first = self._loads_below(self.roots.get(0, []))
        later = [number for level, roots in self.roots.items() if level > 0 for number in roots]
        return first & self._loads_below(later)

    def _loads_below(self, roots: list[int]) -> frozenset[int]:
        """The element loads of float16 that some values are made of."""
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            number = stack.pop()
            if number not in seen and self.values[number].stage == "element":
                seen.add(number)
                stack += self.values[number].args
        return frozenset(
            number
            for number in seen
            if self.values[number].op == "load"
            and self.loop.operands[self.values[number].operand].dtype == "float16"
        )

    @cached_property
    def _costly_paths(self) -> frozenset[int]:
        """Element values that something costly is computed for; what they need has lower numbers.

        Found once for all: where each of many steps reads the last twice, there are 2^steps paths.
        """
        found: set[int] = set()
        for number, value in enumerate(self.values):
            if value.stage == "element" and (is_costly(value) or not found.isdisjoint(value.args)):
                found.add(number)
        return frozenset(found)

    def _cost(self, roots: list[int]) -> int:
        """How many costly values a sweep computes, each of them once."""
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            number = stack.pop()
            if number not in seen and self.values[number].stage == "element":
                seen.add(number)
                stack += [arg for arg in self.values[number].args if arg not in self.kept]
        return sum(is_costly(self.values[number]) for number in seen)

    def _can_stream(self, store: Store, at: Indices) -> bool:
        """Only rows that fit the innermost cache next to their source."""
        columns = self.loop.domain.count(self.loop.domain.columns)
        fitting = at.form == "plain" and (at.flat or (256 <= columns <= 2 * CHUNK and not at.lanes))
        return store.dtype == "float32" and self.is_element_store(store) and fitting
