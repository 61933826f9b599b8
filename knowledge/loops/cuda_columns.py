"""The loop of one thread over the columns of its row: running along it, or over what it holds.

A running loop ends at the row's end. A held row is a fixed number of steps, unrolled and without
branches: past the end, a thread reads the first column again, and gathers and writes nothing.
"""

import re

from knowledge.loops.cuda_shape import Geometry, product_of
from knowledge.loops.cuda_values import CudaValues
from knowledge.loops.spelling import indented

WIDTH = 88


class ColumnLoop:
    """Prints the loop around one sweep's statements.

    `values` make what each column has; `always` keep it, also past the row's end, and `inside` are
    for columns alone. `after` follows each step of several columns.
    """

    def __init__(self, made: CudaValues, shape: Geometry) -> None:
        self.made, self.shape, self.at = made, shape, made.at
        self.values: list[str] = []
        self.always: list[str] = []
        self.inside: list[str] = []
        self.after: list[str] = []

    def lines(self) -> list[str]:
        """The loop."""
        return self._held() if self.shape.items else self._running()

    def along(self) -> tuple[str, str]:
        """The thread's place among those that walk along its row, and how many they are."""
        axis = "y" if self.shape.kind == "lanes" else "x"
        return f"threadIdx.{axis}", f"blockDim.{axis}"

    def _walk(self) -> tuple[str, str]:
        """The first column of a thread, and how far it is to its next."""
        (thread, threads), factor = self.along(), self.shape.vector
        if self.shape.kind == "flat":
            thread = "int64_t(blockIdx.x) * blockDim.x + threadIdx.x"
            threads = "int64_t(gridDim.x) * blockDim.x"
        elif self.shape.spread:
            thread = f"int64_t(blockIdx.y) * {threads} + {thread}"
            threads = f"int64_t(gridDim.y) * {threads}"
        if factor == 1:
            return thread, threads
        thread = f"({thread})" if " " in thread else thread
        return f"{thread} * {factor}", f"{threads} * {factor}"

    def _running(self) -> list[str]:
        first, step = self._walk()
        columns, vector = product_of(self.at.columns), self.shape.vector
        body = [*self.values, *self.always, *self.inside]
        index = "col" if vector == 1 else "start"
        if vector > 1:
            body = [
                *self.made.packs,
                "#pragma unroll",
                f"for (int k = 0; k < {vector}; ++k) {{",
                "    const int64_t col = start + k;",
                f"    if (col < {columns}) {{",
                *indented(body, 2),
                "    }",
                "}",
                *self.after,
            ]
        elif len(self.at.columns) > 1:
            body = [*needed(self.at.unravelled(self.at.columns, "col"), body), *body]
        start, end = f"for (int64_t {index} = {first};", f"{index} += {step}) {{"
        head = [f"{start} {index} < {columns}; {end}"]
        if len(head[0]) > WIDTH:
            head = [f"{start} {index} < {columns};", f"     {end}"]
        return [*head, *indented(body), "}"]

    def _held(self) -> list[str]:
        vector = self.shape.vector
        first, _ = self._walk()
        place = f"{first} + item * {self.shape.along * vector}"
        guarded = self.inside
        if guarded:
            guarded = ["if (inside) {", *indented(guarded), "}"]
        body = [*self.values, *self.always, *guarded]
        found = "start + k" if vector > 1 else "start"
        own = [
            f"const bool inside = {found} < columns;",
            f"const int64_t col = inside ? {found} : 0;",
            *(self.at.unravelled(self.at.columns, "col") if len(self.at.columns) > 1 else []),
        ]
        body = [*needed(own, body), *body]
        begin = [f"const int start = {place};", "const int64_t from = start < columns ? start : 0;"]
        if vector > 1:
            body = [
                *self.made.packs,
                "#pragma unroll",
                f"for (int k = 0; k < {vector}; ++k) {{",
                *indented(body),
                "}",
                *self.after,
            ]
        return [*self._early(begin), *self._steps([*needed(begin, body), *body])]

    def _early(self, begin: list[str]) -> list[str]:
        """The reads of a row's own packs: all under way before the first is used."""
        early = self.made.early.items()
        if not early:
            return []
        steps = self.shape.items
        reads = [
            f"{name}_packs[item] = load_pack({pointer} + from, columns - start);"
            for name, (_, pointer) in early
        ]
        arrays = [f"Pack<{storage}> {name}_packs[{steps}];" for name, (storage, _) in early]
        return [*arrays, *self._steps([*begin, *reads])]

    def _steps(self, body: list[str]) -> list[str]:
        head = f"for (int item = 0; item < {self.shape.items}; ++item) {{"
        return ["#pragma unroll", head, *indented(body), "}"]


def needed(definitions: list[str], body: list[str]) -> list[str]:
    """The definitions that lines use, directly or through one another, in order."""
    kept: list[str] = []
    text = "\n".join(body)
    for line in reversed(definitions):
        found = re.match(r"const \w+ (\w+) =", line)
        assert found is not None
        if re.search(rf"\b{found.group(1)}\b", text):
            kept.append(line)
            text += f"\n{line}"
    return kept[::-1]
