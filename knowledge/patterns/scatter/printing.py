"""C++ of scattered sums: each thread sums the rows of the results that are its own."""

from dataclasses import dataclass

from knowledge.loops.spelling import STORAGE

_HEADERS = "#include <cmath>\n#include <cstdint>\n#include <cstring>\n#include <omp.h>\n"

_ADDED = """{headers}
// Rows that are asked for this many rows before they are added.
constexpr int64_t AHEAD = 16, BLOCK = 1024;

static inline void prefetch_row(const void* row, int64_t bytes) {{
    for (int64_t at = 0; at < bytes; at += 64)
        __builtin_prefetch(static_cast<const char*>(row) + at);
}}

// Each row of source is added to the row of out that its target says. Threads own runs of rows of
// out, and each walks the whole index: sums are in the order of the index on any number of threads.
// A block of the index is first searched for what is the thread's own, without a branch.
extern "C" void {name}(
        {parameters}, const {index}* __restrict__ targets, const {type}* __restrict__ source,
        {type}* __restrict__ out, int64_t* __restrict__ outside,
        int64_t rows, int64_t count, int64_t width) {{
    int64_t wrong = 0;
    #pragma omp parallel reduction(| : wrong) if (count * width > 16384)
    {{
        const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
        const int64_t low = rows * thread / threads, high = rows * (thread + 1) / threads;
        const int64_t bytes = width * sizeof({type});
        {start}
        int32_t own[BLOCK];
        for (int64_t first = 0; first < count; first += BLOCK) {{
            const int64_t size = count - first < BLOCK ? count - first : BLOCK;
            int64_t owned = 0;
            for (int64_t at = 0; at < size; ++at) {{
                const int64_t target = targets[first + at];
                wrong |= target < 0 || target >= rows;
                own[owned] = at;
                owned += target >= low && target < high;
            }}
            for (int64_t n = 0; n < owned; ++n) {{
                if (n + AHEAD < owned) {{
                    const int64_t next = first + own[n + AHEAD];
                    prefetch_row(source + next * width, bytes);
                    prefetch_row(out + targets[next] * width, bytes);
                }}
                const {type}* from = source + (first + own[n]) * width;
                {type}* to = out + targets[first + own[n]] * width;
                #pragma omp simd
                for (int64_t col = 0; col < width; ++col) to[col] += {term};
            }}
        }}
    }}
    *outside = wrong;
}}
"""
_BAGGED = """{headers}
#if defined(__AVX512F__)
constexpr int64_t BYTES = 64;
#elif defined(__AVX__)
constexpr int64_t BYTES = 32;
#else
constexpr int64_t BYTES = 16;
#endif
typedef {type} real;
typedef real vector_t
    __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));
// A strip is as many vectors as there are registers; rows are asked for so many rows ahead.
constexpr int64_t VECTOR = BYTES / sizeof(real), STRIP = 16, AHEAD = 16;

struct Bag {{
    const real *weight, *end;
    const {index}* rows;
    // Rows in the bag, rows of all bags from its first on, columns.
    int64_t size, known, width;
}};

// One strip of columns of a bag: N vectors, whose sums stay in registers. Where columns are no
// whole number of vectors, the last, at `last`, does some of its neighbour's columns once more.
template <int N> static void join_strip(const Bag& bag, int64_t first, int64_t last, real* to) {{
    vector_t sum[N] = {{}};
    {begin}
    for (int64_t at = 0; at < bag.size; ++at) {{
        if (at + AHEAD < bag.known) {{
            const uint64_t next = bag.rows[at + AHEAD];
            const uintptr_t line =
                (uintptr_t)(bag.weight + first) + next * bag.width * sizeof(real);
#pragma GCC unroll 16
            for (int64_t byte = 0; byte < N * BYTES; byte += 64)
                __builtin_prefetch((const void*)(line + byte));
        }}
        const real* from = bag.weight + bag.rows[at] * bag.width + first;
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {{
            const vector_t x = *(const vector_t*)(from + (n < N - 1 ? n * VECTOR : last));
            sum[n] = {join};
        }}
    }}
    const real size = bag.size > 0 ? bag.size : 1;
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n)
        *(vector_t*)(to + first + (n < N - 1 ? n * VECTOR : last)) = {result};
}}
typedef void strip_t(const Bag&, int64_t, int64_t, real*);
static strip_t* const STRIPS[STRIP] = {{
    {strips}
}};

// Rows that are narrower than a vector: neighbours are read along, but none beyond the last row.
static void join_narrow(const Bag& bag, real* to) {{
    const int n = 0;
    vector_t sum[1] = {{}};
    for (int64_t at = 0; at < bag.size; ++at) {{
        if (at + AHEAD < bag.known)
            __builtin_prefetch((const void*)((uintptr_t)bag.weight
                + (uint64_t)bag.rows[at + AHEAD] * bag.width * sizeof(real)));
        const real* from = bag.weight + bag.rows[at] * bag.width;
        vector_t x = {{}};
        if (from + VECTOR <= bag.end) x = *(const vector_t*)from;
        else std::memcpy(&x, from, bag.width * sizeof(real));
        sum[n] = {first_or}{join};
    }}
    const real size = bag.size > 0 ? bag.size : 1;
    const vector_t result = {result};
    std::memcpy(to, &result, bag.width * sizeof(real));
}}

static void join_bag(const Bag& bag, real* to) {{
    if (bag.width < VECTOR) return join_narrow(bag, to);
    const int64_t vectors = (bag.width + VECTOR - 1) / VECTOR;
    const int64_t strips = (vectors + STRIP - 1) / STRIP;
    for (int64_t strip = 0; strip < strips; ++strip) {{
        const int64_t low = vectors * strip / strips, high = vectors * (strip + 1) / strips;
        const int64_t end = high * VECTOR < bag.width ? high * VECTOR : bag.width;
        STRIPS[high - low - 1](bag, low * VECTOR, end - VECTOR - low * VECTOR, to);
    }}
}}

// Each bag is a run of the index, from its offset to the next one's; its rows of weight are joined.
extern "C" void {name}(
        const real* __restrict__ weight, const {index}* __restrict__ indices,
        const {index}* __restrict__ offsets, real* __restrict__ out,
        int64_t* __restrict__ outside,
        int64_t bags, int64_t count, int64_t rows, int64_t width) {{
    int64_t wrong = 0;
    #pragma omp parallel for schedule(dynamic, 64) reduction(| : wrong) if (count * width > 16384)
    for (int64_t bag = 0; bag < bags; ++bag) {{
        const int64_t first = offsets[bag], last = bag + 1 < bags ? offsets[bag + 1] : count;
        int64_t misplaced = first < 0 || last > count || first > last;
        for (int64_t at = first; !misplaced && at < last; ++at)
            misplaced |= indices[at] < 0 || indices[at] >= rows;
        // The caller raises an error, so that nobody sees what is left of the bag's row.
        wrong |= misplaced;
        if (!misplaced)
            join_bag({{weight, weight + rows * width, indices + first, last - first, count - first,
                      width}}, out + bag * width);
    }}
    *outside = wrong;
}}
"""
_SUM, _MEAN, _MAXIMUM = range(3)
# As the library: what is larger takes its place, and the first in any case.
_FROM_FIRST = """if (bag.size > 0)
        for (int n = 0; n < N; ++n)
            sum[n] = *(const vector_t*)(bag.weight + bag.rows[0] * bag.width + first
                                        + (n < N - 1 ? n * VECTOR : last));"""


@dataclass(frozen=True)
class Types:
    """The C++ types of what is summed, and of the index."""

    dtype: str
    index: str


def print_added(name: str, types: Types, alpha: float, from_zero: bool) -> str:
    """Index_add along the first dimension; `from_zero`: what it adds to is 0 and not read."""
    kind = STORAGE[types.dtype]
    suffix = "f" if kind == "float" else ""
    term = "from[col]" if alpha == 1 else f"{float(alpha)!r}{suffix} * from[col]"
    size = f"(high - low) * width * sizeof({kind})"
    copied = f"std::memcpy(out + low * width, start + low * width, {size});"
    text = _ADDED.format(
        headers=_HEADERS, name=name, type=kind, index=STORAGE[types.index], term=term,
        parameters=f"const {kind}* __restrict__ start",
        start=f"std::memset(out + low * width, 0, {size});" if from_zero else copied,
    )  # fmt: skip
    return text.replace(f"const {kind}* __restrict__ start, ", "") if from_zero else text


def print_bagged(name: str, types: Types, mode: int) -> str:
    """An embedding bag: mode 0 sums, 1 averages, 2 takes the maximum."""
    largest = mode == _MAXIMUM
    strips = [f"join_strip<{vectors}>" for vectors in range(1, 17)]
    lines = [", ".join(strips[at : at + 4]) for at in range(0, 16, 4)]
    return _BAGGED.format(
        headers=_HEADERS, name=name, type=STORAGE[types.dtype], index=STORAGE[types.index],
        begin=_FROM_FIRST if largest else "", first_or="at == 0 ? x : " if largest else "",
        join="x > sum[n] ? x : sum[n]" if largest else "sum[n] + x",
        result="sum[n] / size" if mode == _MEAN else "sum[n]", strips=",\n    ".join(lines),
    )  # fmt: skip
