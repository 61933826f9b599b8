"""Prints a pooling as Triton: a program makes a run of results, each from its own window.

Windows that overlap much are joined in two kernels, along rows and then across them. Long windows
that don't overlap are read by several lanes, so that neighbours in memory are read together.
"""

import re
from dataclasses import dataclass, replace
from math import prod

from knowledge.loops.spelling import indented
from knowledge.loops.triton import call_lines
from knowledge.loops.triton_epilogue import Grid, TritonEpilogue
from knowledge.loops.triton_mathematics import helpers
from knowledge.loops.triton_tile import power_of_two
from knowledge.pattern import Parameter
from knowledge.patterns.pooling.windows import Pool

BLOCKS = (256, 128, 512, 1024)
WARPS = (4, 8)
DEFAULTS: dict[str, Parameter] = {"block": BLOCKS[0], "warps": WARPS[0]}
# Elements of a window that are unrolled.
UNROLLED = 32
# What it costs to write an element of rows that are joined and to read it again, in elements read
# from the caches; and the gain from which two kernels are worth their launch. Both are guesses.
BETWEEN, WORTH = 8, 1.5
# Lanes share the columns of a window from this many on.
LANES_FROM = 8
_SIZES = ("depth", "height", "width")
_LETTERS = ("d", "h", "w")


def settings(parameters: dict[str, Parameter]) -> tuple[int, int]:
    """Results and warps of a program.

    Raises:
        ValueError: a tunable is unknown, or has a value that it can't have.
    """
    given = {**DEFAULTS, **parameters}
    if set(given) > set(DEFAULTS) or given["block"] not in BLOCKS or given["warps"] not in WARPS:
        raise ValueError(f"pooling: unknown tunables {parameters}")
    return int(given["block"]), int(given["warps"])


def overlaps(pool: Pool) -> bool:
    """Whether joining rows first, and what comes of it after, takes far fewer steps."""
    down = pool.window[0] * pool.window[1]
    if pool.kind != "max" or pool.adaptive or down == 1 or pool.window[2] == 1:
        return False
    rows = pool.stride[0] * pool.stride[1]
    return down * pool.window[2] > WORTH * (rows * (pool.window[2] + BETWEEN) + down)


@dataclass(frozen=True)
class Printed:
    """The text of a kernel and its launcher, and the definitions that it shares with others."""

    source: str
    helpers: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """What is printed: the pooling, its traced sizes, and what is done to its results.

    `outer` is how many dimensions the result has before the pooled ones; `kept` says that the
    pooling's own result is stored.
    """

    pool: Pool
    name: str
    note: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    outer: int
    epilogue: TritonEpilogue | None
    kept: bool
    block: int
    warps: int


def print_pool(wanted: Wanted) -> Printed:
    """The jit functions and the launcher."""
    pool, outer = wanted.pool, wanted.outer
    tensors = ["source"]
    tensors += [] if wanted.epilogue is None else wanted.epilogue.operands
    tensors += ["result"] if wanted.kept else []
    tensors += [] if wanted.epilogue is None else wanted.epilogue.results
    sizes = ["planes", *_SIZES, *(f"out_{one}" for one in _SIZES)]
    sizes += [f"size{dim}" for dim in range(1, outer)]
    launcher, kernels = [f'"""{wanted.note}."""'], []
    if overlaps(pool):
        rows = _rows_first(pool)
        first = _Pass(wanted, rows, f"{wanted.name}_rows", None, True)
        kernels += first.kernel()
        launcher += [
            "rows = source.new_empty(planes * depth * height * out_width)",
            *first.launch({"source": "source", "result": "rows", "planes": "planes"}),
            "width = out_width",
        ]
        last = _Pass(wanted, _rows_after(pool), wanted.name, wanted.epilogue, wanted.kept)
        kernels += last.kernel()
        launcher += last.launch({"source": "rows"})
    else:
        only = _Pass(wanted, pool, wanted.name, wanted.epilogue, wanted.kept)
        kernels += only.kernel()
        launcher += only.launch({})
    head = call_lines(f"def _{wanted.name}", [*tensors, *sizes], ":")
    text = "\n".join([*kernels, *head, *indented(launcher)]) + "\n"
    return Printed(text, helpers(text))


def _rows_first(pool: Pool) -> Pool:
    """The part of a pooling that lies within rows."""
    return replace(
        pool,
        window=(1, 1, pool.window[2]),
        stride=(1, 1, pool.stride[2]),
        padding=(0, 0, pool.padding[2]),
        dilation=(1, 1, pool.dilation[2]),
    )


def _rows_after(pool: Pool) -> Pool:
    """The part of a pooling that lies across rows."""
    return replace(
        pool,
        window=(*pool.window[:2], 1),
        stride=(*pool.stride[:2], 1),
        padding=(*pool.padding[:2], 0),
        dilation=(*pool.dilation[:2], 1),
    )


@dataclass(frozen=True)
class _Pass:
    """One kernel."""

    wanted: Wanted
    pool: Pool
    name: str
    epilogue: TritonEpilogue | None
    kept: bool

    @property
    def rows_only(self) -> bool:
        """Whether it is the first of two, which leaves all dimensions but the last alone."""
        return self.name != self.wanted.name

    @property
    def axes(self) -> tuple[int, ...]:
        """The dimensions whose index a program needs: all that are pooled."""
        return tuple(range(3 - self.pool.dims, 3))

    @property
    def type(self) -> str:
        """The type in which elements are joined."""
        return "tl.float64" if self.pool.dtype == "float64" else "tl.float32"

    @property
    def lanes(self) -> int:
        """How many lanes share the columns of a window; 0 where one walks through them."""
        columns = self.pool.window[2]
        if self.pool.adaptive:
            columns = -(-self.wanted.before[2] // self.wanted.after[2])
        elif self.pool.stride[2] * 2 < columns:
            return 0
        return min(power_of_two(columns), 64) if columns >= LANES_FROM else 0

    def body(self) -> list[str]:
        """The kernel's statements."""
        pool = self.pool
        neutral = 'float("-inf")' if pool.kind == "max" else "0.0"
        shape = "(BLOCK, LANES)" if self.lanes else "(BLOCK,)"
        lines = [*self._where(), f"total = tl.full({shape}, {neutral}, {self.type})"]
        lines += self._loops(neutral)
        if self.lanes:
            fold = "tl.sum(total, axis=1)"
            lines.append(
                f"total = {'tl.reduce(total, 1, nan_max)' if pool.kind == 'max' else fold}"
            )
        lines += self._mean() if pool.kind == "avg" else []
        if self.kept:
            lines.append("tl.store(result + flat, total, mask=inside)")
        if self.epilogue is not None:
            lines += self._outer_lines()
            lines += self.epilogue.lines("total", self._grid())
        return lines

    def _where(self) -> list[str]:
        """Which results a program makes, and where their windows start."""
        space = " * ".join(f"OUT_{_SIZES[axis].upper()}" for axis in self.axes)
        pixels = " * ".join(_SIZES[axis].upper() for axis in self.axes)
        lines = [
            "first = tl.program_id(0).to(tl.int64) if WIDE else tl.program_id(0)",
            "flat = first * BLOCK + tl.arange(0, BLOCK)",
            f"plane = flat // ({space})",
            f"place = flat % ({space})",
            "inside = plane < planes",
        ]
        for at, axis in enumerate(self.axes):
            after = " * ".join(f"OUT_{_SIZES[one].upper()}" for one in self.axes[at + 1 :])
            divided = f"place // ({after})" if after else "place"
            size, letter = _SIZES[axis].upper(), _LETTERS[axis]
            lines.append(f"out_{letter} = {divided}{f' % OUT_{size}' if at else ''}")
            if self.pool.adaptive:
                lines += [
                    f"first_{letter} = out_{letter} * {size} // OUT_{size}",
                    f"end_{letter} = tl.cdiv((out_{letter} + 1) * {size}, OUT_{size})",
                ]
            else:
                stride, padding = self.pool.stride[axis], self.pool.padding[axis]
                moved = f" * {stride}" if stride > 1 else ""
                moved += f" - {padding}" if padding else ""
                lines.append(f"first_{letter} = out_{letter}{moved}")
        return [*lines, f"start = source + plane * ({pixels})"]

    def _loops(self, neutral: str) -> list[str]:
        """Every element of the window joined to the total."""
        pool, side = self.pool, "[:, None]" if self.lanes else ""
        indices = {0: "depth", 1: "row", 2: "col"}
        lines, tests, pixel = [], ["inside"], ""
        for axis in self.axes:
            letter, size = _LETTERS[axis], _SIZES[axis].upper()
            walked = pool.adaptive or pool.window[axis] > 1
            step = f" * {pool.dilation[axis]}" if pool.dilation[axis] > 1 else ""
            moved = f" + {indices[axis]}{step}" if walked else ""
            lines.append(f"{letter} = first_{letter}{side}{moved}")
            if pool.adaptive:
                tests.append(f"({letter} < end_{letter}{side})")
            elif pool.padding[axis] or pool.ceil:
                tests.append(f"({letter} >= 0) & ({letter} < {size})")
            if self.lanes and axis == 2 and not pool.adaptive:
                tests.append(f"(col < {pool.window[2]})")
            pixel = f"({pixel}) * {size} + {letter}" if pixel else letter
        tests[0] += side
        cast = "" if pool.dtype in ("float32", "float64") else f".to({self.type})"
        joined = "nan_max(total, value)" if pool.kind == "max" else "total + value"
        lines += [
            f"valid = {' & '.join(tests)}",
            f"value = tl.load(start{side} + ({pixel}), mask=valid, other={neutral}){cast}",
            f"total = {joined}",
        ]
        return self._nested(lines)

    def _nested(self, lines: list[str]) -> list[str]:
        """The loops over a window, around what is done for each element of it."""
        pool = self.pool
        for axis, index in ((2, "col"), (1, "row"), (0, "depth")):
            if axis not in self.axes or (not pool.adaptive and pool.window[axis] == 1):
                continue
            most = f"MOST_{_SIZES[axis].upper()}" if pool.adaptive else str(pool.window[axis])
            if axis == 2 and self.lanes:
                lanes = "tl.arange(0, LANES)[None, :]"
                several = pool.adaptive or pool.window[2] > self.lanes
                if not several:
                    lines = [f"{index} = {lanes}", *lines]
                    continue
                head = f"for turn in range(0, {most}, LANES):"
                lines = [head, *indented([f"{index} = turn + {lanes}", *lines])]
                continue
            few = not pool.adaptive and prod(pool.window[axis:]) <= UNROLLED
            loop = "tl.static_range" if few else "range"
            lines = [f"for {index} in {loop}({most}):", *indented(lines)]
        return lines

    def _mean(self) -> list[str]:
        """The total divided by the elements of the window that count."""
        pool = self.pool
        if pool.divisor:
            return [f"total = total / {float(pool.divisor)}"]
        if pool.adaptive:
            count = " * ".join(f"(end_{_LETTERS[a]} - first_{_LETTERS[a]})" for a in self.axes)
            return [f"total = total / ({count})"]
        padded = any(pool.padding)
        if not pool.ceil and (pool.count_padding or not padded):
            return [f"total = total / {float(prod(pool.window))}"]
        parts = []
        for axis in self.axes:
            letter, size = _LETTERS[axis], _SIZES[axis].upper()
            end = f"first_{letter} + {pool.window[axis]}"
            if pool.count_padding:
                parts.append(f"(tl.minimum({end}, {size} + {pool.padding[axis]}) - first_{letter})")
            else:
                parts.append(f"(tl.minimum({end}, {size}) - tl.maximum(first_{letter}, 0))")
        return [f"total = total / ({' * '.join(parts)})"]

    def _outer_lines(self) -> list[str]:
        """The indices of the dimensions that are not pooled."""
        lines, outer = [], self.wanted.outer
        for dim in range(outer):
            after = " * ".join(f"size{one}" for one in range(dim + 1, outer))
            divided = f"plane // ({after})" if after else "plane"
            lines.append(f"outer{dim} = {divided}{f' % size{dim}' if dim else ''}")
        return lines

    def _grid(self) -> Grid:
        """What the kernel calls the indices of the result."""
        outer, axes = self.wanted.outer, self.axes
        every = tuple(range(outer + len(axes)))
        sizes = [f"size{dim}" if dim else "planes" for dim in range(outer)]
        sizes += [f"OUT_{_SIZES[axis].upper()}" for axis in axes]
        index: dict[tuple[int, ...], str] = {(dim,): f"outer{dim}" for dim in range(outer)}
        index |= {(outer + at,): f"out_{_LETTERS[axis]}" for at, axis in enumerate(axes)}
        if outer > 1:
            index[tuple(range(outer))] = "plane"
        if len(axes) > 1:
            index[every[outer:]] = "place"
        index[every] = "flat"
        return Grid(tuple(sizes), index, ((frozenset(every), "inside"),))

    def _parameters(self) -> tuple[list[str], list[str]]:
        """What the kernel is handed, and its constants with their values in the launcher."""
        text = "\n".join(self.body())
        names = ["source", *(self.epilogue.operands if self.epilogue else ()), "result"]
        names += [*(self.epilogue.results if self.epilogue else ()), "planes"]
        names += [f"size{dim}" for dim in range(1, self.wanted.outer)]
        constants = [one.upper() for one in _SIZES] + [f"OUT_{one.upper()}" for one in _SIZES]
        constants += [f"MOST_{one.upper()}" for one in _SIZES] + ["WIDE", "BLOCK", "LANES"]
        found = [n for n in (*names, *constants) if re.search(rf"(?<![\w.]){n}\b", text)]
        return [n for n in found if not n.isupper()], [n for n in found if n.isupper()]

    def kernel(self) -> list[str]:
        """The jit function."""
        names, constants = self._parameters()
        given = [*names, *(f"{one}: tl.constexpr" for one in constants)]
        head = call_lines(f"def {self.name}_kernel", given, ":")
        return ["@triton.jit", *head, *indented(self.body()), "", ""]

    def launch(self, renamed: dict[str, str]) -> list[str]:
        """The statements of the launcher that start it; some names have another tensor's."""
        names, constants = self._parameters()
        outputs = " * ".join(["planes", *(f"out_{_SIZES[axis]}" for axis in self.axes)])
        inputs = " * ".join(["planes", *(_SIZES[axis] for axis in self.axes)])
        values = {"BLOCK": str(self._block()), "LANES": str(self.lanes)}
        values["WIDE"] = "wide"
        for size in _SIZES:
            values[size.upper()] = size
            values[f"OUT_{size.upper()}"] = f"out_{size}"
            most = f"-(-{size} // out_{size}) + ({size} % out_{size} > 0)"
            values[f"MOST_{size.upper()}"] = most
            if self.rows_only and size != "width":
                values[f"OUT_{size.upper()}"] = size
        if self.rows_only:
            outputs = " * ".join(
                ["planes", *(_SIZES[axis] for axis in self.axes[:-1]), "out_width"]
            )
        arguments = [renamed.get(name, name) for name in names]
        arguments += [f"{one}={values[one]}" for one in constants]
        arguments.append(f"num_warps={self.wanted.warps}")
        head = f"{self.name}_kernel[(triton.cdiv({outputs}, {self._block()}),)]"
        wide = f"wide = max({inputs}, {outputs}) >= {2**31 - 2**12}"
        return [wide, *call_lines(head, arguments, "")]

    def _block(self) -> int:
        """Results of a program: fewer where lanes share each."""
        return max(16, self.wanted.block * 8 // self.lanes) if self.lanes else self.wanted.block
