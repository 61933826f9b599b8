"""Puts the C++ of one product together: what its operands are, how it multiplies, what follows."""

from dataclasses import dataclass
from textwrap import fill
from typing import Literal

from knowledge.loops.epilogue import Epilogue
from knowledge.loops.mathematics import helpers
from knowledge.patterns.matmul.blocks import (
    BLOCKS_CPP,
    BUFFER_CPP,
    MIRROR_CPP,
    MULTIPLY_CPP,
    PACK_ALL_CPP,
    PACKING_CPP,
    WHOLE_CPP,
)
from knowledge.patterns.matmul.contraction import Contraction, Triangle
from knowledge.patterns.matmul.small import MULTIPLY_SMALL_CPP, SMALL_CPP
from knowledge.patterns.matmul.thin import ADD_PARTS_CPP, THIN_CPP
from knowledge.tiles import HALVES, INTRINSICS, TRANSPOSE_CPP, real_of, tile_cpp

HEADERS = "".join(
    f"#include <{name}>\n"
    for name in ("algorithm", "cmath", "cstdint", "cstdlib", "cstring", "type_traits", "omp.h")
)


@dataclass(frozen=True)
class Blocking:
    """Sizes of blocks, or another way.

    `thin` takes the way for an operand of a few lines, `small` that for a batch of small products.
    """

    rows: int = 384
    depth: int = 256
    columns: int = 512
    thin: Literal["no", "a", "b"] = "no"
    shared: bool = True
    small: bool = False

    def mirrors(self, found: Contraction) -> bool:
        """Whether half of a product is computed and the other half copied."""
        return found.symmetric and not self.small


def print_source(
    found: Contraction, name: str, blocking: Blocking, epilogue: Epilogue | None
) -> str:
    """The translation unit of a kernel."""
    before = epilogue.source if epilogue else ""
    tile = tile_cpp(found.dtype)
    entry = _entry(found, name, blocking, epilogue)
    if blocking.small:
        own = _small(found, entry)
    elif blocking.thin != "no":
        own = _thin(found, blocking)
    else:
        own = _blocked(found, blocking)
    parts = [
        before,
        HEADERS,
        INTRINSICS if found.dtype == "float16" else "",
        helpers(tile, inline=True, given=before),
        tile,
        *own,
        STORE_CPP if "store_rounded(" in entry else "",
        entry,
    ]
    return "\n".join(part.strip("\n") for part in parts if part) + "\n"


def _blocked(found: Contraction, blocking: Blocking) -> list[str]:
    a, b = found.a, found.b
    constants = (
        f"constexpr int64_t ROWS = {blocking.rows}, DEPTH = {blocking.depth}, "
        f"COLUMNS = {blocking.columns};\n"
        f"constexpr bool A_ALONG = {_word(a.along)}, B_ALONG = {_word(b.along)};\n"
        f"constexpr bool SHARED_B = {_word(blocking.shared)};\n"
        f"constexpr bool WIDE_PACKING = {_word(not b.along and b.triangle is None)};\n"
    )
    code = BLOCKS_CPP.replace("$MASK_A", _mask("a", a.triangle))
    code = code.replace("$MASK_B", _mask("b", b.triangle)).replace("$TILE", _tile(found))
    whole = [WHOLE_CPP] if a.triangle or b.triangle else []
    mirror = [MIRROR_CPP] if found.symmetric else []
    return [
        PACKING_CPP, constants, code, PACK_ALL_CPP, *whole, *mirror, _operands(found),
        _finish(found), MULTIPLY_CPP,
    ]  # fmt: skip


def _small(found: Contraction, entry: str) -> list[str]:
    constants = (
        "// As they were traced; others are right as well.\n"
        f"constexpr int64_t TYPICAL_ROWS = {found.rows.traced};\n"
        f"constexpr int64_t TYPICAL_COLUMNS = {found.columns.traced};\n"
        f"constexpr bool A_ALONG = {_word(found.a.along)}, B_ALONG = {_word(found.b.along)};\n"
    )
    multiply = [MULTIPLY_SMALL_CPP] if "multiply(o" in entry else []
    moving = f"{BUFFER_CPP}{TRANSPOSE_CPP}"
    return [moving, constants, SMALL_CPP, _operands(found), _finish(found), *multiply]


def _thin(found: Contraction, blocking: Blocking) -> list[str]:
    is_a = blocking.thin == "a"
    thin, big = (found.a, found.b) if is_a else (found.b, found.a)
    constants = (
        f"#define BIG_ALONG {int(big.along)}\n"
        f"constexpr bool THIN_IS_A = {_word(is_a)}, THIN_ALONG = {_word(thin.along)};\n"
    )
    head, tail = THIN_CPP.split("// All products of the batch", 1)
    return [
        BUFFER_CPP, constants, head, _operands(found, is_a), _finish(found), ADD_PARTS_CPP,
        f"// All products of the batch{tail}",
    ]  # fmt: skip


def _word(value: bool) -> str:
    return "true" if value else "false"


def _number(value: float, dtype: str) -> str:
    return f"{value!r}{'' if real_of(dtype) == 'double' else 'f'}"


def _mask(operand: str, triangle: Triangle | None) -> str:
    """Zeroes what a triangle leaves out of a packed panel."""
    if triangle is None:
        return ""
    lines, unit = ("i", "TILE_ROWS") if operand == "a" else ("j", "TILE_COLUMNS")
    d = triangle.diagonal
    # Of A(i, k) lower keeps k <= i + d, of B(k, j) it keeps j <= k + d.
    row, column = (f"{lines} + line", "k + at") if operand == "a" else ("k + at", f"{lines} + line")
    outside = f"{column} {'>' if triangle.lower else '<'} {row} + {d}"
    return (
        "    for (int64_t at = 0; at < depth; ++at)\n"
        f"        for (int64_t line = 0; line < {unit}; ++line)\n"
        f"            if ({outside}) to[at * {unit} + line] = 0;\n"
    )


def _tile(found: Contraction) -> str:
    """The call for one tile, with less depth where an operand is zero and none where C is."""
    pad = " " * 20
    plain = f"{pad}tile_product(deep, pa, panel, tile, stride, high, wide, k > t.k0);\n"
    lines = []
    for triangle, below, above in (
        (found.a.triangle, "i + high + {d}", "i + {d}"),
        (found.b.triangle.flipped() if found.b.triangle else None, "j + wide + {d}", "j + {d}"),
    ):
        if triangle is not None and triangle.lower:
            bound = below.format(d=triangle.diagonal)
            lines.append(f"if (!s.whole) last = std::min(last, {bound});")
        elif triangle is not None:
            bound = above.format(d=triangle.diagonal)
            lines.append(f"if (!s.whole) first = std::max(first, {bound});")
    kept = Triangle(True, 0) if found.symmetric else found.keeps
    if kept is not None:
        outside = f"j > i + high - 1 + {kept.diagonal}"
        if not kept.lower:
            outside = f"j + wide - 1 < i + {kept.diagonal}"
        lines.append(f"if ({outside}) last = first;")
    if not lines:
        return plain
    lines = ["int64_t first = k, last = k + deep;", *lines, "first = std::min(first, last);"]
    lines += [
        "if (last > first || k == t.k0)",
        "    tile_product(last - first, pa + (first - k) * TILE_ROWS,",
        "                 panel + (first - k) * TILE_COLUMNS, tile, stride, high, wide, k > t.k0);",
    ]
    return "".join(f"{pad}{line}\n" for line in lines)


def _operands(found: Contraction, thin_is_a: bool | None = None) -> str:
    groups = range(len(found.batch))
    sizes = f"int64_t {', '.join(f'n{at}' for at in groups)}; " if groups else ""
    total = " * ".join(f"n{at}" for at in groups) or "1"
    names = ("matrix_a", "matrix_b")
    if thin_is_a is not None:
        names = ("thin", "big") if thin_is_a else ("big", "thin")
    accessors = [
        f"    const element* {names[at]}(int64_t m, const Shape& s, const Batch& n) const {{\n"
        f"        return {letter}{_matrix(operand.spans, size)};\n    }}\n"
        for at, (letter, operand, size) in enumerate(
            (("a", found.a, "s.rows * s.depth"), ("b", found.b, "s.columns * s.depth"))
        )
    ]
    return (
        f"struct Batch {{ {sizes}int64_t matrices() const {{ return {total}; }} }};\n\n"
        "struct Operands {\n    const element *a, *b, *offset;\n"
        f"{''.join(accessors)}}};\n"
    )


def _matrix(spans: tuple[bool, ...], size: str) -> str:
    """What to add to an operand's address for matrix m of the batch."""
    if not any(spans):
        return ""
    if all(spans):
        return f" + m * {size}"
    place = ""
    for at, spanned in enumerate(spans):
        if spanned:
            later = "".join(f" / n.n{inner}" for inner in range(len(spans) - 1, at, -1))
            index = f"m{later} % n.n{at}"
            place = f"({place} * n.n{at} + {index})" if place else f"({index})"
    return f" + {place} * {size}"


def _finish(found: Contraction) -> str:
    """What is done to a block once all of the depth is summed: scale, offset, triangle."""
    value = "row[j]"
    if found.scale != 1:
        value = f"{_number(found.scale, found.dtype)} * {value}"
    if found.offset is not None:
        place = {
            "element": "(m * s.rows + i) * s.columns + t.j0 + j", "row": "i",
            "column": "t.j0 + j", "one": "0",
        }[found.offset.layout]  # fmt: skip
        factor = (
            "" if found.offset.factor == 1 else f"{_number(found.offset.factor, found.dtype)} * "
        )
        value = f"{value} + {factor}value_of(o.offset + {place})"
    if found.keeps is not None:
        inside = f"t.j0 + j {'<=' if found.keeps.lower else '>='} i + {found.keeps.diagonal}"
        value = f"{inside} ? {value} : 0"
    head = (
        "static inline void finish(\n"
        "        const Operands& o, const Shape& s, int64_t m, const Block& t, real* c,"
        " int64_t stride) {"
    )
    if value == "row[j]":
        return f"// Nothing is left to do to a sum.\n{head}}}\n"
    return (
        f"{head}\n    for (int64_t i = t.i0; i < t.i1; ++i) {{\n"
        "        real* row = c + (i - t.i0) * stride;\n"
        f"        for (int64_t j = 0; j < t.j1 - t.j0; ++j) row[j] = {value};\n    }}\n}}\n"
    )


def _entry(found: Contraction, name: str, blocking: Blocking, epilogue: Epilogue | None) -> str:
    """The function that Python calls."""
    same = found.a.ref == found.b.ref
    pointers = ["const element* a", *([] if same else ["const element* b"])]
    pointers += ["const element* offset"] if found.offset else []
    given = epilogue.parameters.split(", ") if epilogue else []
    split = len(epilogue.reads) + len(epilogue.writes) if epilogue else 0
    pointers += given[:split]
    if epilogue is None or epilogue.keeps_anchor:
        pointers.append("element* out")
    sizes = [*given[split:], "int64_t rows", "int64_t columns", "int64_t depth"]
    sizes += [f"int64_t n{at}" for at in range(len(found.batch))]
    sizes += ["int64_t units"] if epilogue else []
    batch = ", ".join(f"n{at}" for at in range(len(found.batch)))
    triangular = found.a.triangle or found.b.triangle
    spread = "b" if not same else "a"
    counted = [
        " * ".join([*(f"n{at}" for at, spanned in enumerate(o.spans) if spanned), size, "depth"])
        for o, size in ((found.a, "rows"), (found.b, "columns"))
    ]
    whole = ""
    if triangular:
        whole = f", has_non_finite(a, {counted[0]}) || has_non_finite({spread}, {counted[1]})"
    body = [
        f"const Operands o{{a, {spread}, {'offset' if found.offset else 'nullptr'}}};",
        f"const Batch n{{{batch}}};",
        f"const Shape s{{rows, columns, depth{whole}}};",
    ]
    body.append("if (n.matrices() * rows * columns == 0) return;")
    if epilogue or found.dtype in HALVES:
        body += _with_epilogue(found, blocking, epilogue)
    else:
        body.append("multiply(o, s, n, out);")
    if blocking.mirrors(found):
        body.append("mirror(out, s, n.matrices());")
    lines = "".join(f"    {line}\n" for line in body)
    indent = " " * 8
    parameters = fill(", ".join([*pointers, *sizes]), 98, initial_indent=indent,
                      subsequent_indent=indent)  # fmt: skip
    return f'extern "C" void {name}(\n{parameters}) {{\n{lines}}}\n'


def _with_epilogue(found: Contraction, blocking: Blocking, epilogue: Epilogue | None) -> list[str]:
    """The whole product and then what follows where that stays in cache, else block by block.

    What follows is the epilogue, and for halves the rounding of what is kept of the product itself.
    """
    kept = epilogue is None or epilogue.keeps_anchor
    in_place = kept and found.dtype not in HALVES
    target = "real* c = out;"
    if not in_place:
        target = (
            "static thread_local Buffer product;\n    real* c = product.at_least(all * columns);"
        )
    calls, block_calls = [], []
    if epilogue:
        calls.append(epilogue.call("c", "first", "last", "units"))
        block_calls.append(epilogue.call("block - at * columns", "at / each", "last", "units"))
    if kept and not in_place:
        calls.append(
            "store_rounded(c + first * each * columns, (last - first) * each * columns,\n"
            f"{' ' * 22}out + first * each * columns);"
        )
        block_calls.append("store_rounded(block, (t.i1 - t.i0) * columns, out + at * columns);")
    after = AFTER_CPP.replace("$CALL", f"\n{' ' * 8}".join(calls))
    head = "const int64_t all = n.matrices() * rows, threads = omp_get_max_threads();"
    head += "\n    const int64_t units = all;" if epilogue is None else ""
    head += "\n    const int64_t each = all / units;"
    if blocking.thin != "no" or blocking.mirrors(found):
        return [f"{head}\n    {target}\n{after.strip()}"]
    if blocking.small:
        place = "out + at * columns" if in_place else "scratch.at_least(rows * columns)"
        lines = f"\n{' ' * 8}".join(block_calls)
        return [head, SMALL_ROWS_CPP.replace("$PLACE", place).replace("$CALL", lines).strip()]
    place = "out + at * columns" if in_place else "scratch.at_least(high * columns)"
    rows = ROWS_CPP.replace("$PLACE", place).replace("$CALL", f"\n{' ' * 16}".join(block_calls))
    inside = after.strip().replace("\n", "\n    ").replace("\n    #", "\n#")
    target = target.replace("\n", "\n    ")
    fits = f"all * columns * {8 if found.dtype == 'float64' else 4} <= (threads << 21)"
    return [
        f"{head}\n    if ({fits}) {{\n        {target}\n        {inside}"
        f"\n        return;\n    }}\n    {rows.strip()}"
    ]


# Halves are multiplied and summed in float, and rounded once.
STORE_CPP = """
static inline void store_rounded(const real* from, int64_t count, element* to) {
    for (int64_t i = 0; i < count; ++i) to[i] = rounded(from[i]);
}
"""

AFTER_CPP = """
    multiply(o, s, n, c);
    const int64_t chunks = std::min(units, 4 * threads);
#pragma omp parallel for
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t first = units * chunk / chunks, last = units * (chunk + 1) / chunks;
        $CALL
    }
"""

ROWS_CPP = """
    // Blocks of whole units, as many for each thread; 2 MiB of them stay in cache.
    const int64_t fitting = (2 << 20) / sizeof(real) / columns;
    const int64_t most = std::clamp<int64_t>(fitting, 4 * TILE_ROWS, ROWS);
    const int64_t blocks = ceiling(ceiling(all, most), threads) * threads;
    const int64_t tiles = ceiling(ceiling(all, blocks), TILE_ROWS) * TILE_ROWS;
    const int64_t high = each == 1 ? tiles : ceiling(tiles, each) * each;
    static thread_local Buffer all_of_b;
    const int64_t panels = ceiling(columns, TILE_COLUMNS);
    real* packed = SHARED_B ? all_of_b.at_least(panels * TILE_COLUMNS * depth + VECTOR) : nullptr;
#pragma omp parallel
    {
        static thread_local Buffer scratch;
        if (SHARED_B) pack_all_b(o.b, s, packed);
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t m = 0; m < n.matrices(); ++m)
            for (int64_t i = 0; i < rows; i += high) {
                const Block t{i, std::min(i + high, rows), 0, columns, 0, depth};
                const int64_t at = m * rows + i, last = (at + t.i1 - t.i0) / each;
                real* block = $PLACE;
                multiply_block(o.matrix_a(m, s, n), o.matrix_b(m, s, n), packed, s, t, block,
                               columns);
                finish(o, s, m, t, block, columns);
                $CALL
            }
    }
"""

SMALL_ROWS_CPP = """
#pragma omp parallel for
    for (int64_t m = 0; m < n.matrices(); ++m) {
        static thread_local Buffer scratch;
        const Block t{0, rows, 0, columns, 0, depth};
        const int64_t at = m * rows, last = (at + rows) / each;
        real* block = $PLACE;
        multiply_small(o.matrix_a(m, s, n), o.matrix_b(m, s, n), s, block);
        finish(o, s, m, t, block, columns);
        $CALL
    }
"""
