"""C++ of products with one thin operand: bound by memory, so the big operand is streamed once."""

THIN_CPP = r"""
struct Shape { int64_t rows, columns, depth; };
struct Block { int64_t i0, i1, j0, j1, k0, k1; };

static inline int64_t ceiling(int64_t number, int64_t unit) { return (number + unit - 1) / unit; }

// Some lines of the thin operand and where their sums go; the last line fills up to LINES.
template <int64_t LINES> struct Lines {
    const real* line[LINES];
    real* sum[LINES];
    int64_t count;
};

#if BIG_ALONG
// Adds the dot products of these lines with lines [j0, j1) of the big operand, at k0 <= k < k1.
template <int64_t LINES>
static void add_products(
        const Lines<LINES>& thin, const element* big, int64_t step, int64_t j0, int64_t j1,
        int64_t k0, int64_t k1) {
    constexpr int64_t WIDE = LINES > 4 ? 2 : 4, AHEAD = 512;
    for (int64_t j = j0; j < j1; j += WIDE) {
        vector_t sum[LINES][WIDE] = {};
        const element* other[WIDE];
#pragma GCC unroll 4
        for (int64_t w = 0; w < WIDE; ++w) other[w] = big + std::min(j + w, j1 - 1) * step;
        int64_t k = k0;
        for (; k + VECTOR <= k1; k += VECTOR) {
            vector_t loaded[WIDE];
#pragma GCC unroll 4
            for (int64_t w = 0; w < WIDE; ++w) {
                loaded[w] = vector_of(other[w] + k);
                // What comes later on this line, or on the one after WIDE others.
                const int64_t left = k1 - k - AHEAD;
                __builtin_prefetch(other[w] + (left > 0 ? k + AHEAD : WIDE * step + k0 - left));
            }
#pragma GCC unroll 8
            for (int64_t l = 0; l < LINES; ++l)
#pragma GCC unroll 4
                for (int64_t w = 0; w < WIDE; ++w)
                    sum[l][w] += *(const vector_t*)(thin.line[l] + k) * loaded[w];
        }
        for (int64_t l = 0; l < thin.count; ++l)
            for (int64_t w = 0; w < std::min(WIDE, j1 - j); ++w) {
                real total = 0;
                for (int64_t lane = 0; lane < VECTOR; ++lane) total += sum[l][w][lane];
                for (int64_t rest = k; rest < k1; ++rest)
                    total += thin.line[l][rest] * value_of(other[w] + rest);
                thin.sum[l][j + w] += total;
            }
    }
}
#else
// Adds to columns [j0, j1) of these lines the big operand's rows k0 <= k < k1, each times a number.
template <int64_t LINES>
static void add_products(
        const Lines<LINES>& thin, const element* big, int64_t step, int64_t j0, int64_t j1,
        int64_t k0, int64_t k1) {
    int64_t k = k0;
    for (; k + 4 <= k1; k += 4) {
        const element* row = big + k * step;
#pragma GCC unroll 8
        for (int64_t l = 0; l < LINES; ++l) {
            if (l >= thin.count) break;
            const real* by = thin.line[l] + k;
            const real v0 = by[0], v1 = by[1], v2 = by[2], v3 = by[3];
            real* __restrict__ sum = thin.sum[l];
#pragma omp simd
            for (int64_t j = j0; j < j1; ++j)
                sum[j] += (v0 * value_of(row + j) + v1 * value_of(row + j + step))
                    + (v2 * value_of(row + j + 2 * step) + v3 * value_of(row + j + 3 * step));
        }
    }
    for (; k < k1; ++k)
        for (int64_t l = 0; l < thin.count; ++l)
            for (int64_t j = j0; j < j1; ++j)
                thin.sum[l][j] += thin.line[l][k] * value_of(big + k * step + j);
}
#endif

template <int64_t LINES>
static void add_lines(
        const real* thin, int64_t first, int64_t few, int64_t depth, const element* big,
        int64_t many, const Block& t, real* sums) {
    Lines<LINES> lines;
    lines.count = std::min(LINES, few - first);
    for (int64_t l = 0; l < LINES; ++l) {
        const int64_t line = std::min(first + l, few - 1);
        lines.line[l] = thin + line * depth;
        lines.sum[l] = sums + line * many;
    }
    add_products<LINES>(lines, big, BIG_ALONG ? depth : many, t.j0, t.j1, t.k0, t.k1);
}

// All sums of one strip of the big operand over one part of the depth.
static void add_strip(
        const real* thin, int64_t few, int64_t depth, const element* big, int64_t many,
        const Block& t, real* sums) {
    for (int64_t line = 0; line < few; ++line)
        for (int64_t j = t.j0; j < t.j1; ++j) sums[line * many + j] = 0.0f;
    // Long runs, but what several groups of lines read stays in L2.
    const int64_t run = few > 8 ? 1024 : 8192;
    for (int64_t k = t.k0; k < t.k1; k += run) {
        const Block part{0, 0, t.j0, t.j1, k, std::min(k + run, t.k1)};
        for (int64_t first = 0; first < few; first += 8) {
            const int64_t left = few - first;
            if (left == 1) add_lines<1>(thin, first, few, depth, big, many, part, sums);
            else if (left == 2) add_lines<2>(thin, first, few, depth, big, many, part, sums);
            else if (left <= 4) add_lines<4>(thin, first, few, depth, big, many, part, sums);
            else add_lines<8>(thin, first, few, depth, big, many, part, sums);
        }
    }
}

// All products of the batch into c, one after the other, densely. What order sums are added in
// depends on the sizes alone, never on the number of threads.
static void multiply(const Operands& o, const Shape& s, const Batch& batch, real* c) {
    const int64_t matrices = batch.matrices();
    const int64_t few = THIN_IS_A ? s.rows : s.columns, many = THIN_IS_A ? s.columns : s.rows;
    const int64_t strip = BIG_ALONG ? 32 : 1024, strips = ceiling(many, strip);
    const int64_t wanted = std::min(128 / (strips * matrices), s.depth / 512);
    const int64_t parts = std::clamp<int64_t>(wanted, 1, 64), elements = matrices * few * many;
    const int64_t part = ceiling(ceiling(s.depth, parts), 64) * 64;
    static thread_local Buffer sums, turned;
    real* partial = sums.at_least(parts * elements);
    // The thin operand, a line after the other, in the type that is computed in.
    constexpr bool SAME = sizeof(element) == sizeof(real);
    const bool as_it_lies = SAME && (THIN_ALONG || few == 1);
    real* lines = as_it_lies ? nullptr : turned.at_least(matrices * few * s.depth);
    const int64_t high = THIN_IS_A ? 1 : 512, wide = THIN_IS_A ? 8192 : s.columns;
#pragma omp parallel
    {
        if (lines) {
#pragma omp for collapse(2)
            for (int64_t m = 0; m < matrices; ++m)
                for (int64_t line = 0; line < few; ++line)
                    for (int64_t k = 0; k < s.depth; ++k)
                        lines[(m * few + line) * s.depth + k] = value_of(
                            o.thin(m, s, batch)
                            + (THIN_ALONG ? line * s.depth + k : k * few + line));
        }
#pragma omp for collapse(3) schedule(static)
        for (int64_t m = 0; m < matrices; ++m)
            for (int64_t p = 0; p < parts; ++p)
                for (int64_t at = 0; at < strips; ++at) {
                    const real* thin = lines ? lines + m * few * s.depth
                                             : (const real*)o.thin(m, s, batch);
                    const int64_t j = at * strip, k = p * part;
                    const Block t{0, 0, j, std::min(j + strip, many),
                                  std::min(k, s.depth), std::min(k + part, s.depth)};
                    add_strip(thin, few, s.depth, o.big(m, s, batch), many, t,
                              partial + p * elements + m * few * many);
                }
#pragma omp for collapse(3) schedule(static)
        for (int64_t m = 0; m < matrices; ++m)
            for (int64_t i = 0; i < s.rows; i += high)
                for (int64_t j = 0; j < s.columns; j += wide) {
                    const Block t{
                        i, std::min(i + high, s.rows), j, std::min(j + wide, s.columns), 0, 0};
                    add_parts(partial, parts, elements, s, m, t, c + m * few * many);
                    finish(o, s, m, t, c + (m * s.rows + i) * s.columns + j, s.columns);
                }
    }
}
"""

ADD_PARTS_CPP = r"""
// Sums the parts of one block of the result.
static void add_parts(
        const real* partial, int64_t parts, int64_t elements, const Shape& s, int64_t m,
        const Block& t, real* c) {
    const int64_t down = THIN_IS_A ? s.columns : 1, across = THIN_IS_A ? 1 : s.rows;
    const real* from = partial + m * s.rows * s.columns;
    for (int64_t i = t.i0; i < t.i1; ++i)
        for (int64_t j = t.j0; j < t.j1; ++j) {
            real sum = from[i * down + j * across];
            for (int64_t p = 1; p < parts; ++p) sum += from[p * elements + i * down + j * across];
            c[i * s.columns + j] = sum;
        }
}
"""
