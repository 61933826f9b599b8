"""C++ for floats of 16 bits: how they are kept, and how they become floats and are made of them."""

_BFLOAT16 = """
// The upper half of a float, rounded to nearest even.
struct bfloat16 { uint16_t bits; };
static inline float float_of(bfloat16 value) {
    return float_of_bits(static_cast<int32_t>(static_cast<uint32_t>(value.bits) << 16));
}
static inline bfloat16 bfloat16_of(float value) {
    const uint32_t bits = static_cast<uint32_t>(bits_of_float(value));
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return {static_cast<uint16_t>(value != value ? 0x7fc0u : rounded)};
}
"""

_FLOAT16 = """
// IEEE's half precision in whole numbers, as GCC 12 makes no vector code of _Float16. The factor
// brings a half's exponent to a float's, and the denormals with it.
struct float16 { uint16_t bits; };
static inline float float_of_half(float16 value) {
    const int32_t bits = static_cast<int16_t>(value.bits) * 8192;
    const int32_t size = bits & 0x0fffe000;
    const float scaled = float_of_bits(bits & static_cast<int32_t>(0x8fffe000)) * 0x1p112f;
    return float_of_bits(bits_of_float(scaled) | (size >= 0x0f800000 ? 0x7f800000 : 0));
}
// Adding 2^13 times its own power of two leaves ten bits of a float's mantissa, to nearest even;
// from 65520 on it comes to infinity, and below 2^-14 to multiples of 2^-24.
static inline float16 half_of(float value) {
    const int32_t bits = bits_of_float(value);
    int32_t size = bits & 0x7fffffff;
    size = size < 0x47800000 ? size : 0x47800000;
    int32_t power = size & 0x7f800000;
    power = power > 0x38800000 ? power : 0x38800000;
    const float sum = float_of_bits(size) + float_of_bits(power + (13 << 23));
    const int32_t exponent = (power >> 13) - power - (13 << 23) - (0x38800000 >> 13);
    const int32_t rounded = value != value ? 0x7e00 : bits_of_float(sum) + exponent;
    return {static_cast<uint16_t>(rounded | ((bits >> 16) & 0x8000))};
}
"""

_WIDEN_HALVES = """
// A run of halves to floats and back, by the processor's own instruction where it has one.
static inline void widen_halves(const float16* source, int64_t count, float* target) {
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= count; i += 16) {
        const __m256i halves = _mm256_loadu_si256((const __m256i*)(source + i));
        _mm512_storeu_ps(target + i, _mm512_cvtph_ps(halves));
    }
#elif defined(__F16C__)
    for (; i + 8 <= count; i += 8) {
        const __m128i halves = _mm_loadu_si128((const __m128i*)(source + i));
        _mm256_storeu_ps(target + i, _mm256_cvtph_ps(halves));
    }
#endif
    for (; i < count; ++i) target[i] = float_of_half(source[i]);
}
static inline void narrow_halves(const float* source, int64_t count, float16* target) {
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= count; i += 16) {
        const __m256i halves = _mm512_cvtps_ph(_mm512_loadu_ps(source + i), 8);
        _mm256_storeu_si256((__m256i*)(target + i), halves);
    }
#elif defined(__F16C__)
    for (; i + 8 <= count; i += 8) {
        const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(source + i), 8);
        _mm_storeu_si128((__m128i*)(target + i), halves);
    }
#endif
    for (; i < count; ++i) target[i] = half_of(source[i]);
}
"""

# The text that brings each name along.
CONVERSIONS: dict[str, str] = {
    "bfloat16": _BFLOAT16,
    "bfloat16_of": _BFLOAT16,
    "float16": _FLOAT16,
    "float_of_half": _FLOAT16,
    "half_of": _FLOAT16,
    "widen_halves": _WIDEN_HALVES,
    "narrow_halves": _WIDEN_HALVES,
}
