"""Prints a scan as Triton: prefixes of a block by log steps, and a carry from block to block.

A program has some lines along the scanned dimension, neighbours in memory where that is not the
last one. Few long lines are cut into parts, whose totals a first kernel finds.
"""

from dataclasses import dataclass

from knowledge.loops.spelling import indented
from knowledge.loops.triton import Printed, call_lines
from knowledge.loops.triton_mathematics import helpers
from knowledge.loops.triton_tail import jit_function
from knowledge.patterns.scan.chain import Operation, Scan

NEUTRAL: dict[Operation, str] = {
    "cumsum": "0.0", "cumprod": "1.0", "cummax": 'float("-inf")', "cummin": 'float("inf")',
    "logcumsumexp": 'float("-inf")',
}  # fmt: skip
# Of a block x: its prefixes, its total, and two values as one.
SPELLED: dict[Operation, tuple[str, str, str]] = {
    "cumsum": ("tl.cumsum(x, axis=1)", "tl.sum(x, axis=1, keep_dims=True)", "{0} + {1}"),
    "cumprod": (
        "tl.cumprod(x, axis=1)", "tl.reduce(x, 1, product, keep_dims=True)", "{0} * {1}",
    ),
    "cummax": (
        "tl.associative_scan(x, 1, nan_max)", "tl.reduce(x, 1, nan_max, keep_dims=True)",
        "nan_max({0}, {1})",
    ),
    "cummin": (
        "tl.associative_scan(x, 1, nan_min)", "tl.reduce(x, 1, nan_min, keep_dims=True)",
        "nan_min({0}, {1})",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Blocks:
    """What one program takes: lines, steps of them at a time; and parts of lines."""

    lines: int
    steps: int
    warps: int
    parts: int
    wide: bool


@dataclass(frozen=True)
class _Printer:
    scan: Scan
    blocks: Blocks
    name: str

    @property
    def type(self) -> str:
        """The type in which values are gathered."""
        return "tl.float64" if self.blocks.wide or self.scan.dtype == "float64" else "tl.float32"

    @property
    def pairs(self) -> bool:
        """Whether a value is a pair, total * exp(top)."""
        return self.scan.operation == "logcumsumexp"

    @property
    def sources(self) -> list[str]:
        """The tensors that are read."""
        return [f"source{at}" for at in range(len(self.scan.factors))]

    @property
    def scratch(self) -> list[str]:
        """The totals of parts."""
        return ["tops", "sums"] if self.pairs else ["totals"]

    def place_lines(self) -> list[str]:
        """Which lines, and which part of them, a program has."""
        lines = ["task = tl.program_id(0)"]
        if self.blocks.parts > 1:
            lines += [
                "part = task % PARTS",
                "task = task // PARTS",
                "span = tl.cdiv(tl.cdiv(length, PARTS), STEPS) * STEPS",
                "begin = part * span",
                "end = tl.minimum(begin + span, length)",
            ]
        else:
            lines += ["begin = 0", "end = length"]
        return [
            *lines,
            "line = (task * LINES + tl.arange(0, LINES)).to(tl.int64)[:, None]",
            "live = line < outer * inner",
            # `line` comes first: it is of 64 bits, and length * inner may not fit into 32.
            "at = line // inner * length * inner + line % inner",
        ]

    def block_lines(self) -> list[str]:
        """The block under way, neutral where there is nothing; `k` counts steps of the scan."""
        neutral = NEUTRAL[self.scan.operation]
        place = "k"
        if self.scan.reverse:
            place = "(length - 1 - k)"
        elif self.scan.exclusive:
            place = "(k - 1)"
        there = "inside & (k > 0)" if self.scan.exclusive else "inside"
        loads = [
            f"tl.load({name} + at + {place} * inner, mask=there, other=0).to({self.type})"
            for name in self.sources
        ]
        lines = [
            "k = (start + tl.arange(0, STEPS)).to(tl.int64)[None, :]",
            "inside = live & (k < end)",
            f"there = {there}",
            f"x = tl.where(there, {' * '.join(loads)}, {neutral})",
        ]
        one = f"tl.where(there, 1.0, 0.0).to({self.type})"
        return [*lines, f"one = {one}"] if self.pairs else lines

    def carry_lines(self) -> list[str]:
        """What came before the first block: nothing, or all parts before this one."""
        neutral = f"tl.full((LINES, 1), {NEUTRAL[self.scan.operation]}, {self.type})"
        none = f"tl.full((LINES, 1), 0.0, {self.type})"
        if self.blocks.parts == 1:
            return [f"top = {neutral}", f"total = {none}"] if self.pairs else [f"carry = {neutral}"]
        lines = [
            "before = tl.arange(0, PARTS)[None, :]",
            "known = live & (before < part)",
            "part_at = before * (outer * inner) + line",
        ]
        other = NEUTRAL[self.scan.operation]
        if self.pairs:
            return [
                *lines,
                f"part_top = tl.load(tops + part_at, mask=known, other={other})",
                "part_sum = tl.load(sums + part_at, mask=known, other=0.0)",
                "top, total = tl.reduce((part_top, part_sum), 1, log_add, keep_dims=True)",
            ]
        total = SPELLED[self.scan.operation][1].replace("(x,", "(before_it,")
        return [
            *lines,
            f"before_it = tl.load(totals + part_at, mask=known, other={other})",
            f"carry = {total}",
        ]

    def total_lines(self) -> list[str]:
        """The carry after this block."""
        if self.pairs:
            return [
                "all_top, all_total = tl.reduce((x, one), 1, log_add, keep_dims=True)",
                "top, total = log_add(top, total, all_top, all_total)",
            ]
        _, total, joined = SPELLED[self.scan.operation]
        return [f"carry = {joined.format('carry', total)}"]

    def scan_lines(self) -> list[str]:
        """The body of the kernel that writes the result."""
        if self.pairs:
            made = [
                "so_far, sum_so_far = tl.associative_scan((x, one), 1, log_add)",
                "so_far, sum_so_far = log_add(top, total, so_far, sum_so_far)",
                "y = so_far + tl.log(sum_so_far)",
            ]
        else:
            prefixes, _, joined = SPELLED[self.scan.operation]
            made = [f"y = {joined.format('carry', prefixes)}"]
        place = "(length - 1 - k)" if self.scan.reverse else "k"
        body = [
            *self.block_lines(), *made,
            f"tl.store(out + at + {place} * inner, y, mask=inside)", *self.total_lines(),
        ]  # fmt: skip
        return [
            *self.place_lines(), *self.carry_lines(),
            "for start in range(begin, end, STEPS):", *indented(body),
        ]  # fmt: skip

    def part_lines(self) -> list[str]:
        """The body of the kernel that finds the totals of parts."""
        neutral = f"tl.full((LINES, 1), {NEUTRAL[self.scan.operation]}, {self.type})"
        start = [f"carry = {neutral}"]
        ends = ["tl.store(totals + part * (outer * inner) + line, carry, mask=live)"]
        if self.pairs:
            start = [f"top = {neutral}", f"total = tl.full((LINES, 1), 0.0, {self.type})"]
            ends = [
                "tl.store(tops + part * (outer * inner) + line, top, mask=live)",
                "tl.store(sums + part * (outer * inner) + line, total, mask=live)",
            ]
        body = [*self.block_lines(), *self.total_lines()]
        return [
            *self.place_lines(), *start,
            "for start in range(begin, end, STEPS):", *indented(body), *ends,
        ]  # fmt: skip

    def launcher(self, note: str) -> list[str]:
        """What launches the kernels."""
        sizes = ["outer", "length", "inner"]
        meta = [f"LINES={self.blocks.lines}", f"STEPS={self.blocks.steps}"]
        meta += [f"PARTS={self.blocks.parts}"] if self.blocks.parts > 1 else []
        meta.append(f"num_warps={self.blocks.warps}")
        grid = f"triton.cdiv(outer * inner, {self.blocks.lines})"
        lines, scratch = [f'"""{note}."""'], list[str]()
        if self.blocks.parts > 1:
            grid, scratch = f"{grid} * {self.blocks.parts}", self.scratch
            kind = self.type.replace("tl.", "torch.")
            shape = f"({self.blocks.parts}, outer * inner)"
            lines += [
                f"{one} = torch.empty({shape}, dtype={kind}, device=out.device)" for one in scratch
            ]
            given = [*self.sources, *scratch, *sizes, *meta]
            lines += call_lines(f"{self.name}_totals[({grid},)]", given, "")
        given = [*self.sources, "out", *scratch, *sizes, *meta]
        lines += call_lines(f"{self.name}_kernel[({grid},)]", given, "")
        return [
            *call_lines(f"def _{self.name}", [*self.sources, "out", *sizes], ":"),
            *indented(lines),
        ]


def print_scan(scan: Scan, blocks: Blocks, name: str, note: str) -> Printed:
    """The kernels of a scan and what launches them, on its factors, its result, and sizes."""
    printer = _Printer(scan, blocks, name)
    numbers = ["outer", "length", "inner", "LINES", "STEPS"]
    scratch: list[str] = []
    source: list[str] = []
    if blocks.parts > 1:
        numbers, scratch = [*numbers, "PARTS"], printer.scratch
        parameters = [*printer.sources, *scratch, *numbers]
        source += jit_function(f"{name}_totals", parameters, printer.part_lines())
    parameters = [*printer.sources, "out", *scratch, *numbers]
    source += jit_function(f"{name}_kernel", parameters, printer.scan_lines())
    text = "\n".join([*source, *printer.launcher(note)]) + "\n"
    return Printed(text, helpers(text))
