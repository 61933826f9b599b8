"""Prints in C++ one row of a pooling whose windows are all of one size, strip by strip.

A window's rows are joined element by element into a strip that stays in the innermost cache; the
strip's columns are joined after that. Both are vector code, and neither needs a branch for padding:
the strip carries margins of the neutral element.
"""

from knowledge.patterns.pooling.windows import Pool

# From this many columns on, doubling is quicker than joining them one by one.
DOUBLING_FROM = 9
# The longest window whose rows are joined in one pass over the strip.
ROWS_AT_ONCE = 9
# Inputs of a strip, which lie on the stack.
MOST_SPANNED = 1 << 15

JOIN_SOME = """
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

"""

_JOIN_ROWS = """\
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


def windowed_rows(pool: Pool, sizes: str, strip: int) -> str:
    """The function `pool_row`, and what it calls.

    Args:
        pool: what is pooled, and how.
        sizes: parameters of the function, which say how large source and result are.
        strip: results that are made at once, unless their inputs would be too many.
    """
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
        JOIN_SOME,
        _JOIN_ROWS,
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
