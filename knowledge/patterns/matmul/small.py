"""C++ of a batch of small products: each is made at once, out of the first-level cache.

Blocks pack every element, and write tiles that are not full number by number; both take longer than
a small product itself. Here an operand is moved only where its lines run along the depth, and a
tile at the edge starts earlier, so that it is full: some elements are computed twice, alike.
"""

SMALL_CPP = r"""
struct Shape { int64_t rows, columns, depth; };
struct Block { int64_t i0, i1, j0, j1, k0, k1; };

// Vectors of a tile, and as many rows as fit beside them; rows are shared out evenly.
constexpr int64_t WIDE = TYPICAL_COLUMNS > VECTOR ? 2 : 1, MOST_LINES = TILE_ROWS * 2 / WIDE;
constexpr int64_t TILES = (TYPICAL_ROWS + MOST_LINES - 1) / MOST_LINES;
constexpr int64_t LINES = (TYPICAL_ROWS + TILES - 1) / TILES;

static inline int64_t ceiling(int64_t number, int64_t unit) { return (number + unit - 1) / unit; }

// A matrix of which element (k, line) lies at `at[k * step + line]`.
struct Lines { const real* at; int64_t step; };

// That form of an operand whose lines run along the depth (ALONG) or across it. Where it is not
// there already it is made in `room`, with zeros behind the last line up to a whole vector.
template <bool ALONG>
static Lines side_by_side(
        const element* from, int64_t lines, int64_t depth, int64_t least, Buffer& room) {
    if constexpr (!ALONG && std::is_same<element, real>::value)
        if (lines >= least) return {(const real*)from, lines};
    const int64_t step = ceiling(lines, VECTOR) * VECTOR;
    real* to = room.at_least(depth * step);
    for (int64_t first = 0; first < step; first += VECTOR) {
        const int64_t held = std::min(VECTOR, lines - first);
        int64_t k = 0;
        if constexpr (ALONG) {
#if !defined(__clang__)
            for (; k + VECTOR <= depth; k += VECTOR) {
                vector_t rows[VECTOR];
#pragma GCC unroll 16
                for (int64_t i = 0; i < VECTOR; ++i)
                    rows[i] = i < held ? vector_of(from + (first + i) * depth + k) : vector_t{};
                transpose(rows);
#pragma GCC unroll 16
                for (int64_t i = 0; i < VECTOR; ++i)
                    *(vector_t*)(to + (k + i) * step + first) = rows[i];
            }
#endif
        } else if (held == VECTOR) {
            for (; k < depth; ++k)
                *(vector_t*)(to + k * step + first) = vector_of(from + k * lines + first);
        }
        for (; k < depth; ++k)
            for (int64_t i = 0; i < VECTOR; ++i) {
                const int64_t line = first + i;
                to[k * step + line] =
                    i < held ? value_of(from + (ALONG ? line * depth + k : k * lines + line)) : 0;
            }
    }
    return {to, step};
}

// HIGH rows of the product by one or WIDE vectors of columns, the last of which starts at column
// `last` and of which `kept` are written.
template <int64_t HIGH, int64_t VECTORS>
static __attribute__((noinline)) void small_tile(
        const real* __restrict__ a, int64_t step_a, const real* __restrict__ b, int64_t step_b,
        int64_t depth, int64_t last, int64_t kept, real* __restrict__ c, int64_t stride) {
    vector_t sum[HIGH][VECTORS] = {};
    for (int64_t k = 0; k < depth; ++k) {
        const vector_t b0 = *(const vector_t*)(b + k * step_b);
        const vector_t b1 = *(const vector_t*)(b + k * step_b + last);
#pragma GCC unroll 32
        for (int64_t i = 0; i < HIGH; ++i) {
            const real value = a[k * step_a + i];
            if constexpr (VECTORS == 2) sum[i][0] += value * b0;
            sum[i][VECTORS - 1] += value * b1;
        }
    }
#pragma GCC unroll 32
    for (int64_t i = 0; i < HIGH; ++i) {
        real* out = c + i * stride;
        if constexpr (VECTORS == 2) *(vector_t*)out = sum[i][0];
        if (kept == VECTOR)
            *(vector_t*)(out + last) = sum[i][VECTORS - 1];
        else
            std::memcpy(out + last, &sum[i][VECTORS - 1], kept * sizeof(real));
    }
}

template <int64_t HIGH>
static void small_rows(const real* a, int64_t step, Lines b, const Shape& s, real* c) {
    int64_t j = 0;
    for (; WIDE == 2 && s.columns - j > VECTOR; j += 2 * VECTOR) {
        const int64_t last = std::min(VECTOR, s.columns - j - VECTOR);
        small_tile<HIGH, WIDE>(a, step, b.at + j, b.step, s.depth, last, VECTOR, c + j, s.columns);
    }
    for (; j < s.columns; j += VECTOR) {
        // The last vector ends with the row; a row that is shorter than one is padded.
        const int64_t at = s.columns < VECTOR ? 0 : std::min(j, s.columns - VECTOR);
        small_tile<HIGH, 1>(a, step, b.at + at, b.step, s.depth, 0, std::min(VECTOR, s.columns),
                            c + at, s.columns);
    }
}

// All of one product to c, densely.
static void multiply_small(const element* a, const element* b, const Shape& s, real* c) {
    static thread_local Buffer room_a, room_b;
    const Lines right = side_by_side<B_ALONG>(b, s.columns, s.depth, VECTOR, room_b);
    const bool same = a == b && A_ALONG == B_ALONG && s.rows == s.columns;
    const Lines left = same ? right : side_by_side<A_ALONG>(a, s.rows, s.depth, 1, room_a);
    int64_t i = 0;
    if (s.rows >= LINES)
        for (; i < s.rows; i += LINES) {
            const int64_t at = std::min(i, s.rows - LINES);
            small_rows<LINES>(left.at + at, left.step, right, s, c + at * s.columns);
        }
    for (; i < s.rows; ++i)
        small_rows<1>(left.at + i, left.step, right, s, c + i * s.columns);
}
"""

MULTIPLY_SMALL_CPP = r"""
// All products of the batch into c, one after the other, densely.
static void multiply(const Operands& o, const Shape& s, const Batch& batch, real* c) {
#pragma omp parallel for
    for (int64_t m = 0; m < batch.matrices(); ++m) {
        real* to = c + m * s.rows * s.columns;
        multiply_small(o.matrix_a(m, s, batch), o.matrix_b(m, s, batch), s, to);
        finish(o, s, m, {0, s.rows, 0, s.columns, 0, s.depth}, to, s.columns);
    }
}
"""
