"""Prints a pooling as C++: windows are joined along rows first, then along columns.

A window's rows are joined element by element into a strip that stays in the innermost cache; the
strip's columns are joined after that. Both are vector code, and neither needs a branch for padding:
the strip carries margins of the neutral element.
"""

from dataclasses import dataclass

from knowledge.loops.epilogue import Epilogue
from knowledge.loops.mathematics import helpers, reductions
from knowledge.loops.spelling import STORAGE, loaded, stored
from knowledge.patterns.pooling.windows import Pool

# From this many columns on, doubling is quicker than joining them one by one.
DOUBLING_FROM = 9
# The longest window whose rows are joined in one pass over the strip.
ROWS_AT_ONCE = 9
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

_ROWS = """
// strip[i] = what N rows hold at i, joined; with the strip's own where that has begun.
template <int N>
static inline void join_some(
        const element* const* rows, value* __restrict__ strip, int64_t count, bool begun) {
    if (begun) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
            value x = strip[i];
#pragma GCC unroll 16
            for (int n = 0; n < N; ++n) x = joined(x, load(rows[n] + i));
            strip[i] = x;
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        value x = load(rows[0] + i);
#pragma GCC unroll 16
        for (int n = 1; n < N; ++n) x = joined(x, load(rows[n] + i));
        strip[i] = x;
    }
}

static inline void join_rows(
        const element* const* rows, int64_t many, value* strip, int64_t count) {
    bool begun = false;
    for (; many >= 4; many -= 4, rows += 4, begun = true) join_some<4>(rows, strip, count, begun);
    if (many == 3) join_some<3>(rows, strip, count, begun);
    if (many == 2) join_some<2>(rows, strip, count, begun);
    if (many == 1) join_some<1>(rows, strip, count, begun);
    // A dilated window may lie above and below the image, with nothing of it in between.
    if (many == 0 && !begun) std::fill(strip, strip + count, NEUTRAL);
}
"""

_WINDOW = """
// The input's rows in the window of output row (od, oh), from column `column` on.
static inline int64_t find_rows(
        const element* plane, int64_t od, int64_t oh, int64_t column, int64_t depth,
        int64_t height, int64_t width, const element** rows) {
    int64_t many = 0;
    for (int64_t kd = 0; kd < WINDOW_D; ++kd) {
        const int64_t d = od * STRIDE_D - PADDING_D + kd * DILATION_D;
        if (d < 0 || d >= depth) continue;
        for (int64_t kh = 0; kh < WINDOW_H; ++kh) {
            const int64_t h = oh * STRIDE_H - PADDING_H + kh * DILATION_H;
            if (h >= 0 && h < height) rows[many++] = plane + (d * height + h) * width + column;
        }
    }
    return many;
}
"""

_COLUMNS = """
// Joins `count` windows of columns; `finish` makes a result of each.
template <typename Finish>
static inline void join_columns(value* strip, int64_t count, Finish finish) {
#pragma omp simd
    for (int64_t o = 0; o < count; ++o) {
        value x = strip[o * STRIDE_W];
#pragma GCC unroll 16
        for (int64_t k = 1; k < WINDOW_W; ++k)
            x = joined(x, strip[o * STRIDE_W + k * DILATION_W]);
        finish(o, x);
    }
}
"""

_COLUMNS_MAX = """
// Joins `count` windows of columns: in place to windows of 2, 4, 8, ... columns, and two of the
// largest, which may overlap, make the whole. `finish` makes a result of each.
template <typename Finish>
static inline void join_columns(value* strip, int64_t count, Finish finish) {
    const int64_t span = (count - 1) * STRIDE_W + (WINDOW_W - 1) * DILATION_W + 1;
    int64_t reached = 1;
    for (; 2 * reached <= WINDOW_W; reached *= 2) {
        const int64_t step = reached * DILATION_W;
#pragma omp simd
        for (int64_t i = 0; i < span - step; ++i) strip[i] = joined(strip[i], strip[i + step]);
    }
    const int64_t rest = (WINDOW_W - reached) * DILATION_W;
#pragma omp simd
    for (int64_t o = 0; o < count; ++o)
        finish(o, joined(strip[o * STRIDE_W], strip[o * STRIDE_W + rest]));
}
"""

_COLUMNS_SUM = """
// Joins `count` windows of columns: in place to windows of 2, 4, 8, ... columns; those that are
// binary digits of the window's length make the whole. `finish` makes a result of each.
template <typename Finish>
static inline void join_columns(value* strip, int64_t count, Finish finish) {
    const int64_t span = (count - 1) * STRIDE_W + (WINDOW_W - 1) * DILATION_W + 1;
    value whole[STRIP];
    for (int64_t o = 0; o < count; ++o) whole[o] = NEUTRAL;
    int64_t done = 0;
    for (int64_t reached = 1; reached <= WINDOW_W; reached *= 2) {
        if (WINDOW_W & reached) {
#pragma omp simd
            for (int64_t o = 0; o < count; ++o)
                whole[o] = joined(whole[o], strip[o * STRIDE_W + done * DILATION_W]);
            done += reached;
        }
        const int64_t step = reached * DILATION_W;
#pragma omp simd
        for (int64_t i = 0; i < span - step; ++i) strip[i] = joined(strip[i], strip[i + step]);
    }
#pragma omp simd
    for (int64_t o = 0; o < count; ++o) finish(o, whole[o]);
}
"""

_COUNTED = """
// How many elements of a window count: in the input, or in the input with its padding.
static inline int64_t counted(
        int64_t start, int64_t window, int64_t size, int64_t padding, bool with_padding) {
    int64_t end = start + window < size + padding ? start + window : size + padding;
    if (with_padding) return end - start;
    end = end < size ? end : size;
    return end - (start > 0 ? start : 0);
}
"""

_ROW = """
// One row of the result: columns [first, first + STRIP) at a time.
static inline void pool_row(
        const element* plane, made* __restrict__ out, int64_t od, int64_t oh,
        {sizes}) {{
    for (int64_t first = 0; first < out_width; first += STRIP) {{
        const int64_t count = out_width - first < STRIP ? out_width - first : STRIP;
        const int64_t left = first * STRIDE_W - PADDING_W;
        const int64_t span = (count - 1) * STRIDE_W + (WINDOW_W - 1) * DILATION_W + 1;
        const int64_t begin = left > 0 ? left : 0;
        const int64_t end = left + span < width ? left + span : width;
        alignas(64) value strip[SPAN];
        for (int64_t i = 0; i < begin - left; ++i) strip[i] = NEUTRAL;
        for (int64_t i = end - left; i < span; ++i) strip[i] = NEUTRAL;
        const element* rows[WINDOW_D * WINDOW_H];
        const int64_t many = find_rows(plane, od, oh, begin, depth, height, width, rows);
        value* inside = strip + (begin - left);
{joins}
{finish}
    }}
}}
"""

_JOIN_ALL = """\
        if (many == WINDOW_D * WINDOW_H)
            join_some<WINDOW_D * WINDOW_H>(rows, inside, end - begin, false);
        else
            join_rows(rows, many, inside, end - begin);"""
_JOIN_MANY = "        join_rows(rows, many, inside, end - begin);"
_STORE = """\
        made* target = out + first;
        join_columns(strip, count, [&](int64_t o, value x) { target[o] = rounded(x); });"""
_DIVIDE = """\
        made* target = out + first;
        const value divisor = {divisor};
        join_columns(strip, count, [&](int64_t o, value x) {{
            target[o] = rounded(x / divisor);
        }});"""
_DIVIDE_COUNTED = """\
        const int64_t high =
            counted(od * STRIDE_D - PADDING_D, WINDOW_D, depth, PADDING_D, {padding})
            * counted(oh * STRIDE_H - PADDING_H, WINDOW_H, height, PADDING_H, {padding});
        alignas(64) value divisor[STRIP];
        for (int64_t o = 0; o < count; ++o)
            divisor[o] = static_cast<value>(high * counted(
                left + o * STRIDE_W, WINDOW_W, width, PADDING_W, {padding}));
        made* target = out + first;
        join_columns(strip, count, [&](int64_t o, value x) {{
            target[o] = rounded(x / divisor[o]);
        }});"""

_ADAPTIVE = """
// A stretch of a row, joined: a short one as it comes, as lanes would stay empty; sums of long ones
// in double, block by block.
template <typename T, typename Load>
static inline value join_stretch(const T* row, int64_t begin, int64_t end, Load get) {{
    if (end - begin < 16) {{
        value x = NEUTRAL;
        for (int64_t i = begin; i < end; ++i) x = joined(x, get(row + i));
        return x;
    }}
    {total} whole = NEUTRAL;
    for (int64_t block = begin; block < end; block += 1024) {{
        const int64_t stop = block + 1024 < end ? block + 1024 : end;
        value x = NEUTRAL;
#pragma omp simd reduction({reduction} : x)
        for (int64_t i = block; i < stop; ++i) x = {fold}(x, get(row + i));
        whole = {whole};
    }}
    return static_cast<value>(whole);
}}

// Where the cells of an axis begin and end. A division takes as long as ten elements, so a thread
// reckons them once for as long as sizes stay the same.
struct Cells {{
    int64_t size = -1, outputs = -1;
    std::vector<int64_t> begin, end;
    void fit(int64_t length, int64_t many) {{
        if (length == size && many == outputs) return;
        begin.resize(many);
        end.resize(many);
        for (int64_t o = 0; o < many; ++o) {{
            begin[o] = o * length / many;
            end[o] = ((o + 1) * length + many - 1) / many;
        }}
        size = length;
        outputs = many;
    }}
}};
struct Grid {{
    Cells depth, height, width;
    std::vector<value> strip;
}};

// One row of the result.
static inline void pool_row(
        const element* plane, made* __restrict__ out, int64_t od, int64_t oh,
        {sizes}) {{
    static thread_local Grid grid;
    Grid& here = grid;
    here.depth.fit(depth, out_depth);
    here.height.fit(height, out_height);
    here.width.fit(width, out_width);
    const int64_t top = here.height.begin[oh], bottom = here.height.end[oh];
    const int64_t front = here.depth.begin[od], back = here.depth.end[od];
    const bool single = (bottom - top) * (back - front) == 1;
    const element* row = plane + (front * height + top) * width;
    if (!single) {{
        if (static_cast<int64_t>(here.strip.size()) < width) here.strip.resize(width);
        value* strip = here.strip.data();
        bool begun = false;
        for (int64_t d = front; d < back; ++d)
            for (int64_t h = top; h < bottom; h += 4) {{
                const element* rows[4];
                const int64_t many = bottom - h < 4 ? bottom - h : 4;
                for (int64_t n = 0; n < many; ++n) rows[n] = plane + (d * height + h + n) * width;
                if (many == 4) join_some<4>(rows, strip, width, begun);
                if (many == 3) join_some<3>(rows, strip, width, begun);
                if (many == 2) join_some<2>(rows, strip, width, begun);
                if (many == 1) join_some<1>(rows, strip, width, begun);
                begun = true;
            }}
    }}
    const int64_t *begins = here.width.begin.data(), *ends = here.width.end.data();
    const value* strip = here.strip.data();
    for (int64_t o = 0; o < out_width; ++o) {{
        const int64_t begin = begins[o], end = ends[o];
        const value x = single
            ? join_stretch(row, begin, end, load)
            : join_stretch(strip, begin, end, [](const value* place) {{ return *place; }});
        out[o] = rounded({result});
    }}
}}
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
    own = _adaptive(pool, sizes) if pool.adaptive else _windowed(pool, sizes, strip)
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


def _adaptive(pool: Pool, sizes: str) -> str:
    largest = pool.kind == "max"
    area = "static_cast<value>((back - front) * (bottom - top) * (end - begin))"
    text = _ADAPTIVE.format(
        sizes=sizes,
        total="value" if largest else "double",
        reduction="nan_max" if largest else "+",
        fold="nan_max" if largest else "joined",
        whole="joined(whole, x)" if largest else "whole + x",
        result="x" if largest else f"x / {area}",
    )
    return _ROWS.split("static inline void join_rows")[0] + text


# Inputs of a strip, which lie on the stack.
MOST_SPANNED = 1 << 15


def _windowed(pool: Pool, sizes: str, strip: int) -> str:
    strip = min(strip, max(1, MOST_SPANNED // pool.stride[2]))
    span = (strip - 1) * pool.stride[2] + (pool.window[2] - 1) * pool.dilation[2] + 1
    numbers = {
        f"{word}_{axis}": given[position]
        for word, given in (
            ("WINDOW", pool.window), ("STRIDE", pool.stride),
            ("PADDING", pool.padding), ("DILATION", pool.dilation),
        )
        for position, axis in enumerate("DHW")
    }  # fmt: skip
    constants = "".join(
        f"constexpr int64_t {name} = {number};\n"
        for name, number in {**numbers, "STRIP": strip, "SPAN": span}.items()
    )
    doubling = _COLUMNS_MAX if pool.kind == "max" else _COLUMNS_SUM
    columns = doubling if pool.window[2] >= DOUBLING_FROM else _COLUMNS
    finish = _finish(pool)
    row = _ROW.format(
        sizes=sizes,
        joins=_JOIN_ALL if pool.rows <= ROWS_AT_ONCE else _JOIN_MANY,
        finish=finish,
    )
    parts = [
        "\n",
        constants,
        _ROWS,
        _WINDOW,
        columns,
        _COUNTED if "counted(" in finish else "",
        row,
    ]
    return "".join(parts)


def _finish(pool: Pool) -> str:
    if pool.kind == "max":
        return _STORE
    if pool.divisor:
        return _DIVIDE.format(divisor=pool.divisor)
    if pool.padding == (0, 0, 0) and not pool.ceil:
        return _DIVIDE.format(divisor="WINDOW_D * WINDOW_H * WINDOW_W")
    return _DIVIDE_COUNTED.format(padding="true" if pool.count_padding else "false")
