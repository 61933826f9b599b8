"""Prints the statistics of columns as C++: one sweep in double, in parts that are joined in order.

A tensor is seen as outer x columns x inner. Deviations are taken from a first guess at each
column's mean, so that large means cost no digits; the parts' means and squares are joined by Chan's
formula. How the work is cut into parts depends on the sizes alone, so results do not depend on the
number of threads.
"""

from knowledge.loops.spelling import STORAGE

_BASICS = """
typedef {element} element;
// Are squares of deviations needed, or sums alone?
constexpr bool SQUARES = {squares};
constexpr int64_t TASKS = 16;

// A number of elements, their mean, and the sum of squared deviations from it.
struct Moments {{ double count, mean, squares; }};

static inline Moments moments_of(double count, double guess, double sum, double squares) {{
    const double mean = sum / count, spread = squares - sum * mean;
    return {{count, guess + mean, spread < 0 ? 0 : spread}};
}}

// Chan, Golub and LeVeque's formula for the moments of two samples together.
static inline Moments joined(Moments a, Moments b) {{
    if (a.count == 0) return b;
    const double count = a.count + b.count, apart = b.mean - a.mean;
    const double mean = std::isfinite(apart) ? a.mean + apart * (b.count / count) : a.mean + b.mean;
    return {{count, mean, a.squares + b.squares + apart * apart * (a.count * b.count / count)}};
}}
"""

_PLANES = """
// Columns side by side until their planes fill this many elements, so that reads run on.
constexpr int64_t RUN = 4096, MOST = 64;
// As wide as the machine's vectors: wider ones are converted element by element.
#if defined(__AVX512F__)
constexpr int64_t LANES = 8;
#else
constexpr int64_t LANES = 4;
#endif
typedef double vector __attribute__((vector_size(LANES * 8)));
typedef element some __attribute__((vector_size(LANES * sizeof(element)),
                                    aligned(sizeof(element)), may_alias));
struct Sums { vector once, twice; };

static inline void add_plane(const element* plane, int64_t inner, double guess, Sums& sums) {
    vector once = sums.once, twice = sums.twice, other = {}, more = {};
    int64_t i = 0;
    for (; i + 2 * LANES <= inner; i += 2 * LANES) {
        const vector a = __builtin_convertvector(*(const some*)(plane + i), vector) - guess;
        const vector b =
            __builtin_convertvector(*(const some*)(plane + i + LANES), vector) - guess;
        once += a;
        other += b;
        if (SQUARES) twice += a * a;
        if (SQUARES) more += b * b;
    }
    for (; i < inner; ++i) {
        const double a = plane[i] - guess;
        once[i % LANES] += a;
        if (SQUARES) twice[i % LANES] += a * a;
    }
    sums.once = once + other;
    sums.twice = twice + more;
}

static inline double total(vector x) {
    double sum = 0;
    for (int64_t lane = 0; lane < LANES; ++lane) sum += x[lane];
    return sum;
}

// The mean of the first few elements, as what to take deviations from.
static inline double guess_of(const element* plane, int64_t inner) {
    if (!SQUARES) return 0;
    const int64_t count = inner < 64 ? inner : 64;
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += plane[i];
    return std::isfinite(sum) ? sum / count : 0;
}

// Moments of columns [first, last) over outer indices [begin, end).
static void gather(
        const element* x, int64_t columns, int64_t inner, int64_t begin, int64_t end,
        int64_t first, int64_t last, Moments* out) {
    Sums sums[MOST] = {};
    double guess[MOST];
    for (int64_t c = first; c < last; ++c)
        guess[c - first] = guess_of(x + (begin * columns + c) * inner, inner);
    for (int64_t n = begin; n < end; ++n)
        for (int64_t c = first; c < last; ++c)
            add_plane(x + (n * columns + c) * inner, inner, guess[c - first], sums[c - first]);
    for (int64_t c = first; c < last; ++c) {
        const Sums& sum = sums[c - first];
        out[c] = moments_of(
            (end - begin) * inner, guess[c - first], total(sum.once), total(sum.twice));
    }
}

static inline int64_t columns_together(int64_t columns, int64_t inner) {
    const int64_t many = RUN / inner < 1 ? 1 : RUN / inner < MOST ? RUN / inner : MOST;
    return many < columns ? many : columns;
}
"""

_LANES = """
constexpr int64_t MOST = 256, ROWS = 4;

// Moments of columns [first, last) over outer indices [begin, end): neighbours side by side.
static void gather(
        const element* x, int64_t columns, int64_t, int64_t begin, int64_t end,
        int64_t first, int64_t last, Moments* out) {
    const int64_t lanes = last - first;
    double guess[MOST] = {}, once[MOST] = {}, twice[MOST] = {};
    const int64_t few = !SQUARES ? 0 : end - begin < 16 ? end - begin : 16;
    for (int64_t n = begin; n < begin + few; ++n)
        for (int64_t lane = 0; lane < lanes; ++lane) guess[lane] += x[n * columns + first + lane];
    for (int64_t lane = 0; lane < lanes; ++lane)
        guess[lane] = few && std::isfinite(guess[lane]) ? guess[lane] / few : 0;
    int64_t n = begin;
    for (; n + ROWS <= end; n += ROWS) {
        const element* row = x + n * columns + first;
#pragma omp simd
        for (int64_t lane = 0; lane < lanes; ++lane) {
            double sum = 0, squares = 0;
#pragma GCC unroll 4
            for (int64_t r = 0; r < ROWS; ++r) {
                const double a = row[r * columns + lane] - guess[lane];
                sum += a;
                squares += a * a;
            }
            once[lane] += sum;
            if (SQUARES) twice[lane] += squares;
        }
    }
    for (; n < end; ++n)
#pragma omp simd
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const double a = x[n * columns + first + lane] - guess[lane];
            once[lane] += a;
            if (SQUARES) twice[lane] += a * a;
        }
    for (int64_t lane = 0; lane < lanes; ++lane)
        out[first + lane] = moments_of(end - begin, guess[lane], once[lane], twice[lane]);
}

static inline int64_t columns_together(int64_t columns, int64_t) {
    return columns < MOST ? columns : MOST;
}
"""

_MAIN = """
extern "C" void {name}(
        {parameters},
        int64_t outer, int64_t columns, int64_t inner) {{
    const int64_t together = columns_together(columns, inner);
    const int64_t blocks = (columns + together - 1) / together;
    const int64_t wanted = (TASKS + blocks - 1) / blocks;
    const int64_t parts = wanted < outer ? wanted : outer;
    std::vector<Moments> moments(parts * columns);
#pragma omp parallel for schedule(static) if (outer * columns * inner > 16384)
    for (int64_t task = 0; task < parts * blocks; ++task) {{
        const int64_t part = task / blocks, first = task % blocks * together;
        const int64_t last = first + together < columns ? first + together : columns;
        gather(x, columns, inner, outer * part / parts, outer * (part + 1) / parts, first, last,
               moments.data() + part * columns);
    }}
    for (int64_t c = 0; c < columns; ++c) {{
        Moments all = {{0, 0, 0}};
        for (int64_t part = 0; part < parts; ++part)
            all = joined(all, moments[part * columns + c]);
{results}
    }}
}}
"""


def print_statistics(
    name: str, dtype: str, parameters: list[str], results: list[str], planes: bool
) -> str:
    """The translation unit of statistics of `x`.

    Args:
        name: the function's name.
        dtype: of all tensors.
        parameters: C++ parameters that are tensors, `const element* x` first.
        results: statements that make column `c`'s results from its moments `all`.
        planes: whether something is reduced inside the columns, or they are neighbours.
    """
    text = "\n".join(results)
    basics = _BASICS.format(
        element=STORAGE[dtype], squares="true" if "squares" in text else "false"
    )
    main = _MAIN.format(
        name=name,
        parameters=", ".join(parameters),
        results="\n".join(f"        {line}" for line in results),
    )
    head = "#include <cmath>\n#include <cstdint>\n#include <vector>\n"
    return head + basics + (_PLANES if planes else _LANES) + main
