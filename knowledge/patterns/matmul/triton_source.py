"""Prints a matrix product as Triton: its main loop, what follows on each tile, and its launcher.

A program makes one tile of the result, in an order in which neighbours share operands in L2. A
product of few tiles is split along its depth: partial sums in float32, which a second kernel adds
in a fixed order. No atomics: the result is the same to the bit every time.
"""

import re
from dataclasses import dataclass

from knowledge.loops.spelling import indented
from knowledge.loops.triton import Printed, call_lines
from knowledge.loops.triton_mathematics import helpers
from knowledge.loops.triton_tail import (
    JOINED_TILE,
    EpiloguePrinter,
    Frame,
    Tail,
    framed,
    jit_function,
)
from knowledge.loops.triton_tile import power_of_two
from knowledge.patterns.matmul.contraction import Contraction, Operand, Triangle
from knowledge.patterns.matmul.triton_blocks import GROUP, Blocks

# Rows and columns of a tile of the kernel that adds partial sums.
ADDED_COLUMNS = 256


@dataclass(frozen=True)
class Product:
    """What is printed: a product in blocks, with the epilogue and the names of its tensors.

    `is_float32` operands are multiplied in the precision that the blocks say. `result` says that
    the product itself is stored too.
    """

    found: Contraction
    blocks: Blocks
    tail: Tail | None
    name: str
    is_float32: bool
    result: bool

    @property
    def tensors(self) -> list[str]:
        """Parameters of the launcher that are tensors, reads before writes."""
        reads = ["left", "right", *(["added"] if self.found.offset else [])]
        tail = self.tail
        reads += tail.read_names if tail else []
        return [*reads, *(tail.write_names if tail else []), *(["result"] if self.result else [])]

    @property
    def numbers(self) -> list[str]:
        """Parameters of the launcher that are sizes and strides, the epilogue's last."""
        own = ["height", "width", "depth"]
        own += [f"n{at}" for at in range(len(self.found.batch))]
        for side, operand in (("left", self.found.a), ("right", self.found.b)):
            own += [f"{side}_line", f"{side}_deep"]
            own += [f"{side}_matrix"] if any(operand.spans) else []
        return [*own, *(size.name for size in (self.tail.sizes if self.tail else ()))]


def print_product(product: Product, note: str) -> Printed:
    """The kernels of a product and what launches them."""
    return _Printer(product).text(note)


class _Printer:
    """Prints one product."""

    def __init__(self, product: Product) -> None:
        self.product, self.found, self.blocks = product, product.found, product.blocks
        self.tail, self.name = product.tail, product.name
        self.split = self.blocks.parts > 1
        self.in_parts = self.tail is not None and self.tail.kind == "parts"
        self.part_names: list[tuple[str, str]] = []

    def text(self, note: str) -> Printed:
        """All that the module needs."""
        kernel = self._kernel()
        second = self._add_kernel() if self.split else self._join_kernel() if self.in_parts else []
        source = [
            *jit_function(f"{self.name}_kernel", self._parameters(kernel), kernel),
            *(jit_function(f"{self.name}_finish", self._parameters(second), second)
              if second else []),
            *self._launcher(note, kernel, second),
        ]  # fmt: skip
        text = "\n".join(source)
        return Printed(text + "\n", helpers(text))

    def _parameters(self, lines: list[str]) -> list[str]:
        """What a kernel's text reads and is therefore handed: tensors, numbers, constants."""
        text = "\n".join(lines)
        scratch = [*(["partial"] if self.split else []), *(name for name, _ in self.part_names)]
        known = [*self.product.tensors, *scratch, *self.product.numbers, "everything", "tiles"]
        known += ["ROWS", "COLUMNS", "DEPTH", "GROUP", "PARTS", "TILES", "EVEN"]
        return [name for name in known if re.search(rf"(?<![\w.]){name}\b", text)]

    def _kernel(self) -> list[str]:
        """The main kernel: where the tile lies, the product, and what follows."""
        product = self._vector_lines() if self.blocks.vector else self._tile_lines()
        return [*self._place_lines(), *product, *self._after_lines()]

    def _place_lines(self) -> list[str]:
        """Which tile of which matrix, and which part of the depth, a program takes."""
        lines = ["task = tl.program_id(0)", "wide = tl.cdiv(width, COLUMNS)"]
        whole = "wide" if self.blocks.vector else "(high * wide)"
        if not self.blocks.vector:
            lines.append("high = tl.cdiv(height, ROWS)")
        if self.found.batch or self.split or self.blocks.vector:
            lines += [f"matrix = (task // {whole}).to(tl.int64)", f"task = task % {whole}"]
        if self.split:
            lines += [
                "part = matrix % PARTS",
                "matrix = matrix // PARTS",
                "span = tl.cdiv(tl.cdiv(depth, PARTS), DEPTH) * DEPTH",
                "begin = part * span",
                "end = tl.minimum(begin + span, depth)",
            ]
        if self.blocks.vector:
            # One row was traced; if a call brings more of them, each is multiplied by itself.
            lines += ["band = task", "line = matrix % height", "matrix = matrix // height"]
        else:
            # Tiles in bands of GROUP rows, column by column: a wave of them is nearly a square.
            lines += [
                "first = task // (GROUP * wide) * GROUP",
                "tall = tl.minimum(high - first, GROUP)",
                "tile = first + task % (GROUP * wide) % tall",
                "band = task % (GROUP * wide) // tall",
                "line = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)",
            ]
        lines.append("across = (band * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)")
        return [*lines, "deep = tl.arange(0, DEPTH)"]

    def _matrix(self, side: str, operand: Operand) -> str:
        """Where an operand's matrix starts, as a term of a sum; "" where it has only one."""
        if not any(operand.spans):
            return ""
        sizes, terms = [f"n{at}" for at in range(len(self.found.batch))], []
        for at, spans in enumerate(operand.spans):
            if not spans:
                continue
            after = " * ".join(sizes[at + 1 :])
            index = f"matrix // ({after})" if after else "matrix"
            index = f"{index} % {sizes[at]}" if at else index
            weight = [sizes[one] for one in range(at + 1, len(sizes)) if operand.spans[one]]
            terms.append(" * ".join([f"({index})" if index != "matrix" else index, *weight]))
        index = terms[0] if len(terms) == 1 else f"({' + '.join(terms)})"
        return f"{index} * {side}_matrix + "

    def _from(self) -> str:
        return "(begin + deep)" if self.split else "deep"

    def _tile_lines(self) -> list[str]:
        deep, end = self._from(), "end" if self.split else "depth"
        left, right = self._matrix("left", self.found.a), self._matrix("right", self.found.b)
        lines = [
            f"deep_at = {deep}.to(tl.int64)",
            f"left_at = left + {left}line[:, None] * left_line + deep_at[None, :] * left_deep",
            f"right_at = right + {right}across[None, :] * right_line",
            "right_at += deep_at[:, None] * right_deep",
            "in_line = (line < height)[:, None]",
            "in_across = (across < width)[None, :]",
            "acc = tl.zeros((ROWS, COLUMNS), tl.float32)",
            *self._bound_lines(),
            f"for start in range({'begin' if self.split else '0'}, {self._end()}, DEPTH):",
        ]
        loads = [
            "if EVEN:",
            "    left_tile = tl.load(left_at, mask=in_line, other=0.0)",
            "    right_tile = tl.load(right_at, mask=in_across, other=0.0)",
            "else:",
            f"    ahead = deep < {end} - start",
            "    left_tile = tl.load(left_at, mask=in_line & ahead[None, :], other=0.0)",
            "    right_tile = tl.load(right_at, mask=in_across & ahead[:, None], other=0.0)",
        ]
        a, b = self.found.a.triangle, self.found.b.triangle
        if a is not None:
            kept = _keeps(a, "line[:, None]", "(start + deep)[None, :]")
            loads.append(f"left_tile = tl.where({kept}, left_tile, 0.0)")
        if b is not None:
            kept = _keeps(b, "(start + deep)[:, None]", "across[None, :]")
            loads.append(f"right_tile = tl.where({kept}, right_tile, 0.0)")
        precision = f', input_precision="{self.blocks.precision}"'
        precision = precision if self.product.is_float32 else ""
        body = [
            *loads,
            f"acc = tl.dot(left_tile, right_tile, acc{precision})",
            "left_at += DEPTH * left_deep",
            "right_at += DEPTH * right_deep",
        ]
        return [*lines, *indented(body)]

    def _end(self) -> str:
        return "last" if self.found.keeps else "end" if self.split else "depth"

    def _bound_lines(self) -> list[str]:
        """Of a tile that a triangle erases whole nothing is multiplied."""
        keeps = self.found.keeps
        if keeps is None:
            return []
        if keeps.lower:
            erased = f"band * COLUMNS > tile * ROWS + ROWS - 1 + {keeps.diagonal}"
        else:
            erased = f"band * COLUMNS + COLUMNS - 1 < tile * ROWS + {keeps.diagonal}"
        return [f"last = tl.where({erased}, 0, depth)"]

    def _vector_lines(self) -> list[str]:
        """A vector times a matrix: sums of products, for which float32 needs no tensor cores."""
        deep, end = self._from(), "end" if self.split else "depth"
        left, right = self._matrix("left", self.found.a), self._matrix("right", self.found.b)
        return [
            f"deep_at = {deep}.to(tl.int64)",
            f"left_at = left + {left}line * left_line + deep_at * left_deep",
            f"right_at = right + {right}across[:, None] * right_line",
            "right_at += deep_at[None, :] * right_deep",
            "in_across = (across < width)[:, None]",
            "total = tl.zeros((COLUMNS, DEPTH), tl.float32)",
            f"for start in range({'begin' if self.split else '0'}, {end}, DEPTH):",
            f"    ahead = deep < {end} - start",
            "    left_tile = tl.load(left_at, mask=ahead, other=0.0).to(tl.float32)",
            "    right_tile = tl.load(right_at, mask=in_across & ahead[None, :], other=0.0)",
            "    total += left_tile[None, :] * right_tile.to(tl.float32)",
            "    left_at += DEPTH * left_deep",
            "    right_at += DEPTH * right_deep",
            "acc = tl.sum(total, axis=1)[None, :]",
        ]

    def _frame(self) -> Frame:
        """The main kernel's tile."""
        columns = ("across[None, :]", "(across < width)[None, :]")
        if self.blocks.vector:
            row = "tl.full((1, 1), 0, tl.int64) + (matrix * height + line)"
            count = " * ".join([*(f"n{at}" for at in range(len(self.found.batch))), "height"])
            return Frame(row, f"row < {count}", *columns)
        row = "line[:, None]"
        row = f"matrix * height + {row}" if self.found.batch else row
        return Frame(row, "(line < height)[:, None]", *columns)

    def _after_lines(self) -> list[str]:
        """What follows the product of the whole depth, or of a part of it."""
        if not self.split:
            return self._finished(self._frame())
        matrices = " + ".join(["part * everything", "row"])
        store = f"tl.store(partial + ({matrices}) * width + col, acc, mask=inside)"
        return framed(self._frame(), [store])

    def _finished(self, frame: Frame) -> list[str]:
        """Scales, adds, erases and stores a tile, and does the epilogue on it."""
        lead = self._result_lines()
        if self.tail is None:
            return framed(frame, lead)
        printer = self.tail.printer(self.name, frame, lead)
        if self.in_parts:
            self.part_names = printer.part_names
            return printer.part_lines("band * everything + row")
        return printer.kernel_lines()

    def _result_lines(self) -> list[str]:
        lines, found = [], self.found
        if found.scale != 1.0:
            lines.append(f"acc = acc * {found.scale!r}")
        if found.offset is not None:
            where = {"element": "row * width + col", "row": "row", "column": "col", "one": ""}
            mask = {
                "element": "inside", "row": "in_row", "column": "in_col", "one": "",
            }[found.offset.layout]  # fmt: skip
            at = where[found.offset.layout]
            pointer = f"added + {at}" if at else "added"
            load = f"tl.load({pointer}{f', mask={mask}' if mask else ''}).to(tl.float32)"
            factor = f"{found.offset.factor!r} * " if found.offset.factor != 1.0 else ""
            lines.append(f"acc += {factor}{load}")
        if found.keeps is not None:
            lines.append(f"acc = tl.where({self._kept(found.keeps)}, acc, 0.0)")
        if self.product.result:
            lines.append("tl.store(result + row * width + col, acc, mask=inside)")
        return lines

    @staticmethod
    def _kept(triangle: Triangle) -> str:
        return _keeps(triangle, "line[:, None]", "across[None, :]")

    def _add_kernel(self) -> list[str]:
        """Adds the parts of the depth, a tile of rows of the whole result at a time."""
        whole = self.tail is not None and self.tail.kind == "row"
        lines = ["task = tl.program_id(0)"]
        if whole:
            lines += ["height_at = task", "across = tl.arange(0, COLUMNS).to(tl.int64)"]
        else:
            lines += [
                "wide = tl.cdiv(width, COLUMNS)",
                "height_at = task // wide",
                "across = (task % wide * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)",
            ]
        lines += [
            "line = (height_at * ROWS + tl.arange(0, ROWS)).to(tl.int64)",
            "here = (line < everything)[:, None] & (across < width)[None, :]",
            "at = partial + line[:, None] * width + across[None, :]",
            "acc = tl.zeros((ROWS, COLUMNS), tl.float32)",
            "for part in range(PARTS):",
            "    acc += tl.load(at, mask=here, other=0.0)",
            "    at += tl.cast(everything, tl.int64) * width",
        ]
        frame = Frame(
            "line[:, None]", "(line < everything)[:, None]",
            "across[None, :]", "(across < width)[None, :]",
        )  # fmt: skip
        return [*lines, *self._finished(frame)]

    def _join_kernel(self) -> list[str]:
        """Joins what the tiles of each row found."""
        assert self.tail is not None
        lines = [
            "line = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)",
            "tile = tl.arange(0, TILES)[None, :]",
            "here = (line < everything)[:, None] & (tile < tiles)",
        ]
        frame = Frame("line[:, None]", "(line < everything)[:, None]", "tile", "tile < tiles")
        printer: EpiloguePrinter = self.tail.printer(self.name, frame, [])
        return [*lines, *printer.join_lines("tile * everything + row", "here")]

    def _launcher(self, note: str, kernel: list[str], second: list[str]) -> list[str]:
        matrices = [f"n{at}" for at in range(len(self.found.batch))]
        given = [*self.product.tensors, *self.product.numbers]
        lines = [f'"""{note}."""']
        if second:
            lines.append(f"everything = {' * '.join([*matrices, 'height'])}")
        lines += self._scratch()
        blocks = self.blocks
        columns = str(blocks.columns)
        if self.tail is not None and self.tail.kind == "row" and not self.split:
            lines.append("columns = max(16, triton.next_power_of_2(width))")
            columns = "columns"
        grid = [*matrices, *([str(blocks.parts)] if self.split else [])]
        grid += [f"triton.cdiv(width, {columns})"]
        grid += ["height"] if blocks.vector else [f"triton.cdiv(height, {blocks.rows})"]
        constants = {
            "ROWS": str(blocks.rows), "COLUMNS": columns, "DEPTH": str(blocks.depth),
            "GROUP": str(GROUP), "PARTS": str(blocks.parts),
            "EVEN": f"depth % {blocks.depth} == 0",
        }  # fmt: skip
        meta = [f"num_warps={blocks.warps}", f"num_stages={blocks.stages}"]
        lines += self._launch("kernel", kernel, " * ".join(grid), constants, meta)
        if second:
            lines += self._launch_second(second)
        return [*call_lines(f"def _{self.name}", given, ":"), *indented(lines)]

    def _scratch(self) -> list[str]:
        """What the second kernel reads."""
        if self.split:
            shape = f"({self.blocks.parts}, everything, width)"
            return [f"partial = torch.empty({shape}, dtype=torch.float32, device=left.device)"]
        lines = []
        if self.in_parts:
            lines.append(f"tiles = triton.cdiv(width, {self.blocks.columns})")
        for name, kind in self.part_names:
            dtype = kind.replace("tl.", "torch.")
            made = f"torch.empty((tiles, everything), dtype={dtype}, device=left.device)"
            lines.append(f"{name} = {made}")
        return lines

    def _launch_second(self, second: list[str]) -> list[str]:
        if self.in_parts and not self.split:
            tiles = "triton.next_power_of_2(tiles)"
            rows = self._rows(power_of_two(-(-self.found.columns.traced // self.blocks.columns)))
            grid = f"triton.cdiv(everything, {rows})"
            constants = {"ROWS": str(rows), "TILES": tiles}
        elif self.tail is not None and self.tail.kind == "row":
            columns = "max(16, triton.next_power_of_2(width))"
            rows = self._rows(power_of_two(self.found.columns.traced))
            grid = f"triton.cdiv(everything, {rows})"
            constants = {"ROWS": str(rows), "COLUMNS": columns, "PARTS": str(self.blocks.parts)}
        else:
            columns_at = min(ADDED_COLUMNS, max(16, power_of_two(self.found.columns.traced)))
            rows = self._rows(columns_at)
            grid = f"triton.cdiv(everything, {rows}) * triton.cdiv(width, {columns_at})"
            constants = {
                "ROWS": str(rows), "COLUMNS": str(columns_at), "PARTS": str(self.blocks.parts),
            }  # fmt: skip
        return self._launch("finish", second, grid, constants, ["num_warps=4"])

    def _rows(self, columns: int) -> int:
        """How many rows the second kernel takes at a time."""
        rows = power_of_two(self.found.matrices * self.found.rows.traced)
        return min(rows, max(1, JOINED_TILE // columns))

    def _launch(
        self, what: str, lines: list[str], grid: str, constants: dict[str, str], meta: list[str]
    ) -> list[str]:
        parameters = self._parameters(lines)
        given = [f"{one}={constants[one]}" if one.isupper() else one for one in parameters]
        return call_lines(f"{self.name}_{what}[({grid},)]", [*given, *meta], "")


def _keeps(triangle: Triangle, row: str, column: str) -> str:
    comparison = "<=" if triangle.lower else ">="
    shift = f" + {triangle.diagonal}" if triangle.diagonal else ""
    return f"{column} {comparison} {row}{shift}"
