"""C++ for the innermost tile of every matrix product here, sized for the vectors of the machine.

A pattern that multiplies packs its operands into panels, the way it knows its layout (rows of a
matrix, windows of an image), and calls `tile_product` on them; what it does around that is its own.
"""

ROWS, COLUMNS = "TILE_ROWS", "TILE_COLUMNS"

# Accumulators fill the registers but for one row of B and a broadcast: 12 x 2 of 32 with AVX-512,
# 6 x 2 of 16 with AVX2, 8 x 2 of 32 with NEON.
TILE_CPP = r"""
#if defined(__AVX512F__)
constexpr int64_t VECTOR = 16, TILE_ROWS = 12;
#elif defined(__AVX__)
constexpr int64_t VECTOR = 8, TILE_ROWS = 6;
#else
constexpr int64_t VECTOR = 4, TILE_ROWS = 8;
#endif
constexpr int64_t TILE_COLUMNS = 2 * VECTOR;
typedef float vector_t __attribute__((vector_size(VECTOR * 4), aligned(4), may_alias));

// c[rows x columns] = or += a * b. `a` is packed [depth][TILE_ROWS], `b` [depth][TILE_COLUMNS],
// padded with zeros; only `rows` x `columns` of c are written. Inlined into a larger function it
// runs out of registers: attention did 67 in place of 87 GFLOP/s a core.
static __attribute__((noinline)) void tile_product(
        int64_t depth, const float* __restrict__ a, const float* __restrict__ b,
        float* __restrict__ c, int64_t stride, int64_t rows, int64_t columns, bool add) {
    vector_t sum[TILE_ROWS][2] = {};
    for (int64_t k = 0; k < depth; ++k) {
        const vector_t b0 = *(const vector_t*)(b + k * TILE_COLUMNS);
        const vector_t b1 = *(const vector_t*)(b + k * TILE_COLUMNS + VECTOR);
#pragma GCC unroll 16
        for (int64_t i = 0; i < TILE_ROWS; ++i) {
            const float value = a[k * TILE_ROWS + i];
            sum[i][0] += value * b0;
            sum[i][1] += value * b1;
        }
    }
    if (rows == TILE_ROWS && columns == TILE_COLUMNS) {
#pragma GCC unroll 16
        for (int64_t i = 0; i < TILE_ROWS; ++i) {
            vector_t* out = (vector_t*)(c + i * stride);
            vector_t* next = (vector_t*)(c + i * stride + VECTOR);
            *out = add ? *out + sum[i][0] : sum[i][0];
            *next = add ? *next + sum[i][1] : sum[i][1];
        }
        return;
    }
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) {
            const float value = sum[i][j / VECTOR][j % VECTOR];
            c[i * stride + j] = add ? c[i * stride + j] + value : value;
        }
}
"""
