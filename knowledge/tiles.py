"""C++ for the innermost tile of every matrix product here, sized for the vectors of the machine.

A pattern that multiplies packs its operands into panels, the way it knows its layout (rows of a
matrix, windows of an image), and calls `tile_product` on them; what it does around that is its own.
Panels hold what is computed in, `real`: double for float64, float for all other types, which are
converted while they are packed and rounded once when all is summed.
"""

from knowledge.loops.spelling import STORAGE, loaded, stored

ROWS, COLUMNS = "TILE_ROWS", "TILE_COLUMNS"

FLOATS = ("float32", "float64", "bfloat16", "float16")
HALVES = ("bfloat16", "float16")

# Accumulators fill the registers but for one row of B and a broadcast: 12 x 2 of 32 with AVX-512,
# 6 x 2 of 16 with AVX2, 8 x 2 of 32 with NEON.
_TILE = r"""
#if defined(__AVX512F__)
constexpr int64_t VECTOR = 64 / sizeof(real), TILE_ROWS = 12;
#elif defined(__AVX__)
constexpr int64_t VECTOR = 32 / sizeof(real), TILE_ROWS = 6;
#else
constexpr int64_t VECTOR = 16 / sizeof(real), TILE_ROWS = 8;
#endif
constexpr int64_t TILE_COLUMNS = 2 * VECTOR;
typedef real vector_t __attribute__((vector_size(VECTOR * sizeof(real)), aligned(sizeof(real)),
                                     may_alias));

// c[rows x columns] = or += a * b. `a` is packed [depth][TILE_ROWS], `b` [depth][TILE_COLUMNS],
// padded with zeros; only `rows` x `columns` of c are written. Inlined into a larger function it
// runs out of registers: attention did 67 in place of 87 GFLOP/s a core.
static __attribute__((noinline)) void tile_product(
        int64_t depth, const real* __restrict__ a, const real* __restrict__ b,
        real* __restrict__ c, int64_t stride, int64_t rows, int64_t columns, bool add) {
    vector_t sum[TILE_ROWS][2] = {};
    for (int64_t k = 0; k < depth; ++k) {
        const vector_t b0 = *(const vector_t*)(b + k * TILE_COLUMNS);
        const vector_t b1 = *(const vector_t*)(b + k * TILE_COLUMNS + VECTOR);
#pragma GCC unroll 16
        for (int64_t i = 0; i < TILE_ROWS; ++i) {
            const real value = a[k * TILE_ROWS + i];
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
            const real value = sum[i][j / VECTOR][j % VECTOR];
            c[i * stride + j] = add ? c[i * stride + j] + value : value;
        }
}
"""

TILE_CPP = f"\ntypedef float real;{_TILE}"

# Transposing by interleaving halves: after log2(VECTOR) rounds row k holds what was column k.
TRANSPOSE_CPP = r"""#if !defined(__clang__)
typedef std::conditional<sizeof(real) == 8, int64_t, int32_t>::type lane_t;
typedef lane_t lanes_t __attribute__((vector_size(VECTOR * sizeof(real))));

static inline void transpose(vector_t (&rows)[VECTOR]) {
    lanes_t low, high;
    for (lane_t i = 0; i < VECTOR; ++i) {
        low[i] = i / 2 + (i % 2) * VECTOR;
        high[i] = low[i] + VECTOR / 2;
    }
#pragma GCC unroll 4
    for (int64_t round = 1; round < VECTOR; round *= 2) {
        vector_t mixed[VECTOR];
#pragma GCC unroll 16
        for (int64_t i = 0; i < VECTOR / 2; ++i) {
            mixed[2 * i] = __builtin_shuffle(rows[i], rows[i + VECTOR / 2], low);
            mixed[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + VECTOR / 2], high);
        }
#pragma GCC unroll 16
        for (int64_t i = 0; i < VECTOR; ++i) rows[i] = mixed[i];
    }
}
#endif
"""

_ELEMENTS = """
// Tensors hold elements; what is computed is real.
typedef {real} real;
typedef {element} element;
static inline real value_of(const element* place) {{ return {loaded}; }}
static inline element rounded(real value) {{ return {stored}; }}
"""
# A vector of bfloat16 is one of float with its lower halves empty; F16C converts the other kind.
_VECTOR_OF = r"""
static inline vector_t vector_of(const element* place) { return *(const vector_t*)place; }
"""
_VECTOR_OF_BFLOAT16 = r"""
typedef uint16_t uppers_t __attribute__((vector_size(VECTOR * 2), aligned(2), may_alias));
typedef uint32_t words_t __attribute__((vector_size(VECTOR * 4)));
static inline vector_t vector_of(const element* place) {
    return (vector_t)(__builtin_convertvector(*(const uppers_t*)place, words_t) << 16);
}
"""
_VECTOR_OF_FLOAT16 = r"""
static inline vector_t vector_of(const element* place) {
#if defined(__AVX512F__)
    return (vector_t)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)place));
#elif defined(__F16C__)
    return (vector_t)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)place));
#else
    vector_t values;
    for (int64_t i = 0; i < VECTOR; ++i) values[i] = value_of(place + i);
    return values;
#endif
}
"""
INTRINSICS = "#if defined(__F16C__)\n#include <immintrin.h>\n#endif\n"


def real_of(dtype: str) -> str:
    """The C++ type that elements of a type are computed in."""
    return "double" if dtype == "float64" else "float"


def elements_cpp(dtype: str) -> str:
    """How elements of a type are read (`value_of`) and written (`rounded`).

    Helpers that their conversion calls go before.
    """
    return _ELEMENTS.format(
        real=real_of(dtype),
        element=STORAGE[dtype],
        loaded=loaded(dtype, "*place"),
        stored=stored(dtype, "value"),
    )


def tile_cpp(dtype: str) -> str:
    """`elements_cpp`, `tile_product`, and a vector of neighbours read at once (`vector_of`)."""
    vector_of = {"bfloat16": _VECTOR_OF_BFLOAT16, "float16": _VECTOR_OF_FLOAT16}
    return elements_cpp(dtype) + _TILE + vector_of.get(dtype, _VECTOR_OF)
