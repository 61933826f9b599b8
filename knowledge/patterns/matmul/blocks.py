"""C++ of the blocked product: panels packed, blocks dealt to threads, tiles of `tile_product`."""

from knowledge.tiles import TRANSPOSE_CPP

BUFFER_CPP = r"""
// Memory kept between calls: fresh pages would be faulted in every time.
struct Buffer {
    real* data = nullptr;
    int64_t size = 0;
    ~Buffer() { std::free(data); }
    real* at_least(int64_t wanted) {
        if (wanted > size) {
            std::free(data);
            data = (real*)std::aligned_alloc(64, (wanted * sizeof(real) + 63) / 64 * 64);
            size = data ? wanted : 0;
        }
        if (!data) std::abort();
        return data;
    }
};

"""

_PANELS_CPP = r"""
// Packs up to WIDTH lines of a matrix side by side, [depth][WIDTH], the missing ones as zeros. A
// line's elements are neighbours (ALONG) or `step` apart. Writes up to VECTOR numbers past the end.
template <int64_t WIDTH, bool ALONG>
static void pack_panel(
        const element* __restrict__ from, int64_t step, int64_t lines, int64_t depth,
        real* __restrict__ to) {
    int64_t k = 0;
    if constexpr (!ALONG) {
        if (lines == WIDTH)
            for (; k < depth; ++k) {
                // Each line lies on another page, where the hardware foresees nothing.
                for (int64_t i = 0; i < WIDTH; i += 16)
                    __builtin_prefetch(from + (k + 16) * step + i);
                int64_t i = 0;
                for (; i + VECTOR <= WIDTH; i += VECTOR)
                    *(vector_t*)(to + k * WIDTH + i) = vector_of(from + k * step + i);
                for (; i < WIDTH; ++i) to[k * WIDTH + i] = value_of(from + k * step + i);
            }
        for (; k < depth; ++k)
            for (int64_t i = 0; i < WIDTH; ++i)
                to[k * WIDTH + i] = i < lines ? value_of(from + k * step + i) : 0;
        return;
    }
#if !defined(__clang__)
    for (; k + VECTOR <= depth; k += VECTOR)
        // Backwards: what a store writes past its panel's width, a later one overwrites.
        for (int64_t first = (WIDTH - 1) / VECTOR * VECTOR; first >= 0; first -= VECTOR) {
            const int64_t held = std::min(VECTOR, WIDTH - first);
            vector_t rows[VECTOR];
            for (int64_t i = 0; i < held; ++i)
                __builtin_prefetch(from + (first + i) * step + k + 128, 0, 2);
            for (int64_t i = 0; i < VECTOR; ++i)
                rows[i] = i < held && first + i < lines
                    ? vector_of(from + (first + i) * step + k) : vector_t{};
            transpose(rows);
            for (int64_t i = 0; i < VECTOR; ++i)
                *(vector_t*)(to + (k + i) * WIDTH + first) = rows[i];
        }
#endif
    for (; k < depth; ++k)
        for (int64_t i = 0; i < WIDTH; ++i)
            to[k * WIDTH + i] = i < lines ? value_of(from + i * step + k) : 0;
}
"""
PACKING_CPP = f"{BUFFER_CPP}{TRANSPOSE_CPP}{_PANELS_CPP}"

# Everything here is per matrix of a batch; `Shape` names the sizes of one product.
BLOCKS_CPP = r"""
// `whole`: a value is not finite, so that zeros must be multiplied too, as 0 * inf is NaN.
struct Shape { int64_t rows, columns, depth; bool whole = false; };
struct Block { int64_t i0, i1, j0, j1, k0, k1; };

static inline int64_t ceiling(int64_t number, int64_t unit) { return (number + unit - 1) / unit; }

static inline void pack_a(
        const element* a, const Shape& s, int64_t i, int64_t lines, int64_t k, int64_t depth,
        real* to) {
    pack_panel<TILE_ROWS, A_ALONG>(
        A_ALONG ? a + i * s.depth + k : a + k * s.rows + i, A_ALONG ? s.depth : s.rows, lines,
        depth, to);
$MASK_A}

static inline void pack_b(
        const element* b, const Shape& s, int64_t j, int64_t lines, int64_t k, int64_t depth,
        real* to) {
    pack_panel<TILE_COLUMNS, B_ALONG>(
        B_ALONG ? b + j * s.depth + k : b + k * s.columns + j, B_ALONG ? s.depth : s.columns, lines,
        depth, to);
$MASK_B}

// Packs columns [j0, j1) of B, one panel after the other.
static void pack_columns(
        const element* b, const Shape& s, int64_t j0, int64_t j1, int64_t k, int64_t depth,
        real* to) {
    int64_t j = j0;
    // Where columns are neighbours, several panels take their part of a row in passing.
    for (; WIDE_PACKING && j + 4 * TILE_COLUMNS <= j1; j += 4 * TILE_COLUMNS)
        for (int64_t at = 0; at < depth; ++at) {
            const element* row = b + (k + at) * s.columns + j;
            real* out = to + (j - j0) * depth + at * TILE_COLUMNS;
            for (int64_t panel = 0; panel < 4; ++panel)
                for (int64_t i = 0; i < TILE_COLUMNS; i += VECTOR)
                    *(vector_t*)(out + panel * TILE_COLUMNS * depth + i) =
                        vector_of(row + panel * TILE_COLUMNS + i);
        }
    for (; j < j1; j += TILE_COLUMNS)
        pack_b(b, s, j, std::min(TILE_COLUMNS, j1 - j), k, depth, to + (j - j0) * depth);
}

// Asks for part `at` of `parts` of the next panel of A, while this one is multiplied.
static inline void foresee(
        const element* a, const Shape& s, int64_t i, int64_t k, int64_t depth, int64_t at,
        int64_t parts) {
    const int64_t length = A_ALONG ? TILE_ROWS : depth, step = A_ALONG ? s.depth : s.rows;
    const int64_t across = A_ALONG ? depth : TILE_ROWS;
    const element* from = A_ALONG ? a + i * s.depth + k : a + k * s.rows + i;
    for (int64_t line = length * at / parts; line < length * (at + 1) / parts; ++line)
        for (int64_t x = 0; x < across; x += 16) __builtin_prefetch(from + line * step + x);
}

// One block of a product, to c (its upper left element). `packed` holds all of B, for each DEPTH of
// it panel after panel: what a block needs at a time lies together, and does not meet itself in the
// sets of L2. Without it the block packs what it needs.
static void multiply_block(
        const element* a, const element* b, const real* packed, const Shape& s, const Block& t,
        real* c, int64_t stride) {
    static thread_local Buffer panel_a, panels_b;
    real* pa = panel_a.at_least(DEPTH * TILE_ROWS + VECTOR);
    const int64_t padded = ceiling(s.columns, TILE_COLUMNS) * TILE_COLUMNS;
    real* pb = packed ? nullptr : panels_b.at_least(DEPTH * (COLUMNS + TILE_COLUMNS) + VECTOR);
    for (int64_t jc = t.j0; jc < t.j1; jc += COLUMNS)
        for (int64_t k = t.k0; k == t.k0 || k < t.k1; k += DEPTH) {
            const int64_t end = std::min(jc + COLUMNS, t.j1), deep = std::min(DEPTH, t.k1 - k);
            if (!packed)
                pack_columns(b, s, jc, end, k, deep, pb);
            for (int64_t i = t.i0; i < t.i1; i += TILE_ROWS) {
                const int64_t high = std::min(TILE_ROWS, t.i1 - i);
                pack_a(a, s, i, high, k, deep, pa);
                for (int64_t j = jc; j < end; j += TILE_COLUMNS) {
                    const int64_t wide = std::min(TILE_COLUMNS, end - j);
                    const real* panel = packed ? packed + k * padded + j * deep
                                                : pb + (j - jc) * deep;
                    real* tile = c + (i - t.i0) * stride + j - t.j0;
                    for (int64_t row = 0; row < high; ++row)
                        for (int64_t at = 0; at < wide; at += 16)
                            __builtin_prefetch(tile + row * stride + at, 1);
                    foresee(a, s, i + TILE_ROWS, k, deep, (j - jc) / TILE_COLUMNS,
                            ceiling(end - jc, TILE_COLUMNS));
$TILE                }
            }
        }
}

struct Grid { int64_t high, wide; };

// Sizes of blocks with which the threads should finish first. Packing an element costs about as
// much as PACKING multiply-adds.
static Grid choose_grid(const Shape& s, int64_t matrices, int64_t threads) {
    constexpr int64_t PACKING = 8;
    const int64_t most_i = ceiling(s.rows, TILE_ROWS), most_j = ceiling(s.columns, TILE_COLUMNS);
    const int64_t least_i = ceiling(s.rows, ROWS), least_j = ceiling(s.columns, COLUMNS);
    Grid best{};
    int64_t cost = INT64_MAX;
    for (int64_t ni = least_i; ni <= std::min(most_i, least_i + 16); ++ni)
        for (int64_t waves = 1; waves <= 8; ++waves) {
            const int64_t wanted = ceiling(threads * waves, matrices * ni);
            const int64_t nj = std::min(most_j, std::max(least_j, wanted));
            const int64_t high = ceiling(ceiling(s.rows, ni), TILE_ROWS) * TILE_ROWS;
            const int64_t wide = ceiling(ceiling(s.columns, nj), TILE_COLUMNS) * TILE_COLUMNS;
            const int64_t blocks = matrices * ceiling(s.rows, high) * ceiling(s.columns, wide);
            const int64_t each = high * wide + PACKING * (high + wide);
            if (ceiling(blocks, threads) * each < cost) {
                cost = ceiling(blocks, threads) * each;
                best = {high, wide};
            }
        }
    return best;
}
"""

MULTIPLY_CPP = r"""
// All products of the batch into c, one after the other, densely.
static void multiply(const Operands& o, const Shape& s, const Batch& batch, real* c) {
    const int64_t threads = omp_get_max_threads(), matrices = batch.matrices();
    const Grid grid = choose_grid(s, matrices, threads);
    const int64_t ni = ceiling(s.rows, grid.high), nj = ceiling(s.columns, grid.wide);
    // A long, thin product is split along its depth, in a way that no number of threads changes.
    const int64_t few = ceiling(s.rows, 128) * ceiling(s.columns, 128) * matrices;
    const int64_t parts = std::clamp<int64_t>(std::min(64 / few, s.depth / 1024), 1, 64);
    const int64_t part = ceiling(ceiling(s.depth, parts), DEPTH) * DEPTH;
    const int64_t elements = matrices * s.rows * s.columns;
    const int64_t padded = ceiling(s.columns, TILE_COLUMNS) * TILE_COLUMNS;
    static thread_local Buffer all_of_b, sums;
    real* packed = SHARED_B ? all_of_b.at_least(padded * s.depth + VECTOR) : nullptr;
    real* partial = parts > 1 ? sums.at_least(parts * elements) : c;
#pragma omp parallel
    {
        if (SHARED_B) pack_all_b(o.b, s, packed);
#pragma omp for collapse(4) schedule(dynamic)
        for (int64_t p = 0; p < parts; ++p)
            for (int64_t m = 0; m < matrices; ++m)
                for (int64_t bi = 0; bi < ni; ++bi)
                    for (int64_t bj = 0; bj < nj; ++bj) {
                        const int64_t i = bi * grid.high, j = bj * grid.wide, k = p * part;
                        const Block t{
                            i, std::min(i + grid.high, s.rows),
                            j, std::min(j + grid.wide, s.columns),
                            std::min(k, s.depth), std::min(k + part, s.depth)};
                        real* block = partial + p * elements + (m * s.rows + i) * s.columns + j;
                        multiply_block(o.matrix_a(m, s, batch), o.matrix_b(m, s, batch), packed, s,
                                       t, block, s.columns);
                        if (parts == 1) finish(o, s, m, t, block, s.columns);
                    }
        if (parts > 1) {
#pragma omp for
            for (int64_t row = 0; row < matrices * s.rows; ++row) {
                real* sum = c + row * s.columns;
                for (int64_t j = 0; j < s.columns; ++j) sum[j] = partial[row * s.columns + j];
                for (int64_t p = 1; p < parts; ++p)
                    for (int64_t j = 0; j < s.columns; ++j)
                        sum[j] += partial[p * elements + row * s.columns + j];
                const int64_t i = row % s.rows;
                finish(o, s, row / s.rows, {i, i + 1, 0, s.columns, 0, 0}, sum, s.columns);
            }
        }
    }
}
"""

PACK_ALL_CPP = r"""
// Shares the packing of B among the threads of the region it is called in.
static void pack_all_b(const element* b, const Shape& s, real* packed) {
    const int64_t padded = ceiling(s.columns, TILE_COLUMNS) * TILE_COLUMNS;
    const int64_t wide = WIDE_PACKING ? 4 * TILE_COLUMNS : TILE_COLUMNS;
#pragma omp for
    for (int64_t j = 0; j < s.columns; j += wide)
        for (int64_t k = 0; k < s.depth; k += DEPTH) {
            const int64_t deep = std::min(DEPTH, s.depth - k);
            pack_columns(b, s, j, std::min(j + wide, s.columns), k, deep,
                         packed + k * padded + j * deep);
        }
}
"""

WHOLE_CPP = r"""
static bool has_non_finite(const element* values, int64_t count) {
    int64_t found = 0;
#pragma omp parallel for simd reduction(+ : found)
    for (int64_t i = 0; i < count; ++i) {
        const real value = value_of(values + i);
        found += value - value != 0;
    }
    return found > 0;
}
"""

MIRROR_CPP = r"""
// Copies what lies below the diagonal of each symmetric matrix to above it.
static void mirror(element* c, const Shape& s, int64_t matrices) {
    const int64_t side = s.rows;
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t m = 0; m < matrices; ++m)
        for (int64_t bi = 0; bi < side; bi += 32)
            for (int64_t bj = 0; bj <= bi; bj += 32)
                for (int64_t i = bi; i < std::min(bi + 32, side); ++i)
                    for (int64_t j = bj; j < std::min(bj + 32, i); ++j)
                        c[m * side * side + j * side + i] = c[m * side * side + i * side + j];
}
"""
