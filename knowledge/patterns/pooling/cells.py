"""Prints in C++ one row of an adaptive pooling, whose cells differ in size and overlap."""

from knowledge.patterns.pooling.strips import JOIN_SOME
from knowledge.patterns.pooling.windows import Pool

_ROW = """
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


def adaptive_rows(pool: Pool, sizes: str) -> str:
    """The function `pool_row`, and what it calls; `sizes` are parameters of it."""
    largest = pool.kind == "max"
    area = "static_cast<value>((back - front) * (bottom - top) * (end - begin))"
    text = _ROW.format(
        sizes=sizes,
        total="value" if largest else "double",
        reduction="nan_max" if largest else "+",
        fold="nan_max" if largest else "joined",
        whole="joined(whole, x)" if largest else "whole + x",
        result="x" if largest else f"x / {area}",
    )
    return JOIN_SOME + text
