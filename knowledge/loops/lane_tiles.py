"""Tiles: where short rows lie side by side in lanes, between being read and being written."""

from collections.abc import Sequence

from knowledge.loops.form import Loop
from knowledge.loops.indices import Indices
from knowledge.loops.plan import PREFETCH_FROM, Options, Plan
from knowledge.loops.spelling import STORAGE
from knowledge.loops.values import Values


class LaneTiles:
    """The tiles of one loop: none but in the form that has some."""

    def __init__(self, loop: Loop, at: Indices, plan: Plan, made: Values, options: Options) -> None:
        self.loop, self.at, self.made = loop, at, made
        self.prefetch = options.prefetch
        self._stores = [
            number
            for number, store in enumerate(loop.stores)
            if at.form == "tiles" and plan.is_element_store(store)
        ]

    def filled(self) -> list[str]:
        """The lines that fill the tiles of what is read."""
        lines = []
        pointers = [self.made.read_pointer(number) for number in self.made.tiled]
        for number, pointer in zip(self.made.tiled, pointers, strict=True):
            atoms = self.loop.operands[number].atoms
            step = " * ".join(self.at.inner_step(atoms, self.made.spacings[number])) or "1"
            tile, columns = self.made.tile_name(number), self.at.tile_columns(atoms)
            lines.append(f"into_lanes({pointer}, {step}, lanes, {columns}, {tile}, LANES);")
            if not self.made.spacings[number]:
                lines += self._asked(pointer, atoms, "lanes * {0} + ", 0)
        for number in self._stores:
            atoms = self.loop.stores[number].atoms
            lines += self._asked(self.made.write_pointer(number), atoms, "", 1)
        return lines

    def _asked(self, pointer: str, atoms: tuple[int, ...], ahead: str, write: int) -> list[str]:
        """The line that asks for the next task's rows of a tensor, or for those to be written.

        A task may be no longer than a page, at whose end the hardware's own prefetcher stops.
        """
        if not self.prefetch or self.loop.domain.count(atoms) < PREFETCH_FROM:
            return []
        columns = self.at.tile_columns(atoms)
        line = f"__builtin_prefetch({pointer} + {ahead.format(columns)}ahead, {write}, 3);"
        return [f"for (int64_t ahead = 0; ahead < lanes * {columns}; ahead += 16) {line}"]

    def emptied(self) -> list[str]:
        """The lines that write the tiles of results."""
        lines = []
        pointers = [self.made.write_pointer(number) for number in self._stores]
        for number, pointer in zip(self._stores, pointers, strict=True):
            columns = self.at.tile_columns(self.loop.stores[number].atoms)
            tile = f"tile_{self.made.store_names[number]}"
            lines.append(f"from_lanes({tile}, LANES, lanes, {columns}, {pointer}, {columns});")
        return lines

    def _cells(self, atoms: tuple[int, ...]) -> str:
        return f"({self.at.tile_columns(atoms)}) * LANES"

    def buffers(self, kept: Sequence[tuple[str, str, str]]) -> list[str]:
        """Tiles, and row buffers by name, type and size, that begin where a cache line does."""
        names, stores, operands = self.made.store_names, self.loop.stores, self.loop.operands
        found = list(kept)
        for number in self.made.tiled:
            tile = self.made.tile_name(number)
            found.append(
                (tile, STORAGE[operands[number].dtype], self._cells(operands[number].atoms))
            )
        for number in self._stores:
            tile = f"tile_{names[number]}"
            found.append((tile, STORAGE[stores[number].dtype], self._cells(stores[number].atoms)))
        return [
            line
            for name, kind, size in found
            for line in (
                f"std::vector<{kind}> {name}_memory({size} + 64);",
                f"{kind}* {name} = aligned({name}_memory.data());",
            )
        ]
