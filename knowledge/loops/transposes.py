"""C++ that lays short rows side by side in vector lanes, and results back into rows."""

_ALIGNED = """
// Where the next cache line begins; buffers that are aligned so have 64 elements to spare.
template <typename T> static inline T* aligned(T* start) {
    return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(start) + 63) & ~uintptr_t(63));
}
"""

_LANES = """
// `count` rows that begin `step` apart into a tile, and back: column c of row r at c * apart + r.
template <typename T> static inline void into_lanes(
    const T* rows, int64_t step, int64_t count, int64_t columns, T* tile, int64_t apart) {
    for (int64_t r = 0; r < count; ++r)
        for (int64_t c = 0; c < columns; ++c) tile[c * apart + r] = rows[r * step + c];
}
template <typename T> static inline void from_lanes(
    const T* tile, int64_t apart, int64_t count, int64_t columns, T* rows, int64_t step) {
    for (int64_t r = 0; r < count; ++r)
        for (int64_t c = 0; c < columns; ++c) rows[r * step + c] = tile[c * apart + r];
}
#if defined(__AVX__)
// Four by four floats are transposed in either half of four registers.
static inline void transpose_halves(__m256* a) {
    const __m256 b0 = _mm256_unpacklo_ps(a[0], a[1]), b1 = _mm256_unpackhi_ps(a[0], a[1]);
    const __m256 b2 = _mm256_unpacklo_ps(a[2], a[3]), b3 = _mm256_unpackhi_ps(a[2], a[3]);
    a[0] = _mm256_shuffle_ps(b0, b2, 0x44);
    a[1] = _mm256_shuffle_ps(b0, b2, 0xee);
    a[2] = _mm256_shuffle_ps(b1, b3, 0x44);
    a[3] = _mm256_shuffle_ps(b1, b3, 0xee);
}
// Blocks of eight rows and four columns; the last ones overlap those before.
static inline void into_lanes(
    const float* rows, int64_t step, int64_t count, int64_t columns, float* tile, int64_t apart) {
    if (count < 8 || columns < 4) return into_lanes<float>(rows, step, count, columns, tile, apart);
    for (int64_t r = 0; r < count; r += 8) {
        const int64_t row = r + 8 < count ? r : count - 8;
        for (int64_t c = 0; c < columns; c += 4) {
            const int64_t column = c + 4 < columns ? c : columns - 4;
            const float* from = rows + row * step + column;
            float* to = tile + column * apart + row;
            __m256 block[4];
            for (int i = 0; i < 4; ++i) {
                const __m256 low = _mm256_castps128_ps256(_mm_loadu_ps(from + i * step));
                block[i] = _mm256_insertf128_ps(low, _mm_loadu_ps(from + (i + 4) * step), 1);
            }
            transpose_halves(block);
            for (int i = 0; i < 4; ++i) _mm256_storeu_ps(to + i * apart, block[i]);
        }
    }
}
static inline void from_lanes(
    const float* tile, int64_t apart, int64_t count, int64_t columns, float* rows, int64_t step) {
    if (count < 8 || columns < 4) return from_lanes<float>(tile, apart, count, columns, rows, step);
    for (int64_t r = 0; r < count; r += 8) {
        const int64_t row = r + 8 < count ? r : count - 8;
        for (int64_t c = 0; c < columns; c += 4) {
            const int64_t column = c + 4 < columns ? c : columns - 4;
            const float* from = tile + column * apart + row;
            float* to = rows + row * step + column;
            __m256 block[4];
            for (int i = 0; i < 4; ++i) block[i] = _mm256_loadu_ps(from + i * apart);
            transpose_halves(block);
            for (int i = 0; i < 4; ++i) {
                _mm_storeu_ps(to + i * step, _mm256_castps256_ps128(block[i]));
                _mm_storeu_ps(to + (i + 4) * step, _mm256_extractf128_ps(block[i], 1));
            }
        }
    }
}
#endif
"""

# The text that brings each name along.
TRANSPOSES: dict[str, str] = {"aligned": _ALIGNED, "into_lanes": _LANES, "from_lanes": _LANES}
