"""Prints a pooling as C++: the loop over rows of the result, with an epilogue where one follows.

The function that makes a row is in `strips.py`, or in `cells.py` for adaptive pooling.
"""

from dataclasses import dataclass

from knowledge.loops.epilogue import Epilogue
from knowledge.loops.mathematics import helpers, reductions
from knowledge.loops.spelling import STORAGE, loaded, stored
from knowledge.patterns.pooling.cells import adaptive_rows
from knowledge.patterns.pooling.strips import windowed_rows
from knowledge.patterns.pooling.windows import Pool

SIZES = ("depth", "height", "width", "out_depth", "out_height", "out_width")

_BASICS = """
typedef {element} element;
typedef {value} value;
typedef {made} made;
constexpr value NEUTRAL = {neutral};
static inline value load(const element* place) {{ return {loaded}; }}
static inline made rounded(value x) {{ return {stored}; }}
static inline value joined(value a, value b) {{ return {joined}; }}
"""

# The sum of two of which one is NaN is NaN. Written as a choice between the two themselves, GCC 12
# makes branches of it, and no vectors: a 3 x 3 window took 24 ms where it takes 1.6. A reduction it
# makes vectors of in the form of `nan_max`.
_LARGER = "__builtin_isunordered(a, b) ? a + b : (b > a ? b : a)"

_MAIN = """
extern "C" void {name}(
        const element* source, element* result, int64_t planes,
        {parameters}) {{
    const int64_t tasks = planes * out_depth * out_height;
#pragma omp parallel for schedule(static) if (tasks > 1 && planes * depth * height * width > 16384)
    for (int64_t task = 0; task < tasks; ++task) {{
        const int64_t oh = task % out_height, od = task / out_height % out_depth;
        const int64_t plane = task / (out_height * out_depth);
        pool_row(source + plane * depth * height * width, result + task * out_width, od, oh,
                 {sizes});
    }}
}}
"""

# Units of one row, or of a whole plane where the epilogue needs one; small ones go together.
_MAIN_FUSED = """
extern "C" void {name}(
        const element* source, {given}, int64_t planes,
        {parameters}) {{
    const int64_t rows = {rows}, units = planes * out_depth * out_height / rows;
    const int64_t unit = rows * out_width, together = unit < 4096 ? 4096 / unit : 1;
#pragma omp parallel if (units > together && planes * depth * height * width > 16384)
    {{{scratch}
#pragma omp for schedule(static)
        for (int64_t first = 0; first < units; first += together) {{
            const int64_t last = first + together < units ? first + together : units;
            made* const block = {block};
            for (int64_t row = first * rows; row < last * rows; ++row) {{
                const int64_t oh = row % out_height, od = row / out_height % out_depth;
                const int64_t plane = row / (out_height * out_depth);
                pool_row(source + plane * depth * height * width, block + row * out_width, od, oh,
                         {sizes});
            }}
            {call}{copy}
        }}
    }}
}}
"""
_SCRATCH = "\n        std::vector<made> scratch(together * unit);"
# An epilogue reads what was not rounded yet.
_COPY = """
            for (int64_t at = first * unit; at < last * unit; ++at) result[at] = {stored};"""


@dataclass(frozen=True)
class Fused:
    """An epilogue, and whether its units are whole planes rather than rows of the result."""

    epilogue: Epilogue
    planes: bool


def print_pool(pool: Pool, name: str, strip: int, fused: Fused | None) -> str:
    """The translation unit of a pooling, whose rows are done in strips of `strip` results."""
    value = "double" if pool.dtype == "float64" else "float"
    wide = fused is not None and fused.epilogue.reads_wide
    basics = _BASICS.format(
        element=STORAGE[pool.dtype],
        value=value,
        neutral="-INFINITY" if pool.kind == "max" else "0",
        loaded=loaded(pool.dtype, "*place"),
        made="value" if wide else "element",
        stored="x" if wide else stored(pool.dtype, "x"),
        joined=_LARGER if pool.kind == "max" else "a + b",
    )
    sizes = ",\n        ".join(
        ", ".join(f"int64_t {size}" for size in part) for part in (SIZES[:3], SIZES[3:])
    )
    own = adaptive_rows(pool, sizes) if pool.adaptive else windowed_rows(pool, sizes, strip)
    body = basics + own + _main(pool, name, sizes, fused)
    before = fused.epilogue.source if fused is not None else ""
    head = "".join(f"#include <{one}>\n" for one in ("cmath", "cstdint", "cstring", "vector"))
    return head + before + helpers(body, True, before) + reductions(body, before) + body


def _main(pool: Pool, name: str, parameters: str, fused: Fused | None) -> str:
    sizes = ", ".join(SIZES)
    if fused is None:
        return _MAIN.format(name=name, parameters=parameters, sizes=sizes)
    epilogue = fused.epilogue
    given = epilogue.parameters.split(", ")
    in_place = epilogue.keeps_anchor and not epilogue.reads_wide
    copied = epilogue.keeps_anchor and epilogue.reads_wide
    if epilogue.keeps_anchor:
        given.insert(len(epilogue.reads), "element* result")
    return _MAIN_FUSED.format(
        name=name,
        given=", ".join(given),
        parameters=parameters,
        rows="out_depth * out_height" if fused.planes else "1",
        scratch="" if in_place else _SCRATCH,
        block="result" if in_place else "scratch.data() - first * unit",
        copy=_COPY.format(stored=stored(pool.dtype, "block[at]")) if copied else "",
        sizes=sizes,
        call=epilogue.call("block", "first", "last", "units"),
    )
