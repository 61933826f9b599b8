"""C++ helpers that kernels bring along, written so that compilers make vector code of them.

The inline exponential reduces its argument by Cody and Waite's two-part ln 2 and evaluates the
Cephes polynomials (Moshier, expf, logf, tanhf, erff); within 2 units in the last place, checked
against float64 in the tests. Powers: within 2 for exponents up to 4, 14 at 64.
"""

import re

_BITS = """
static inline float float_of_bits(int32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
static inline int32_t bits_of_float(float value) {
    int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
"""

# In one expression, (a > b || a != a) ? a : b, a clamp is no vector code with GCC 12 and AVX2.
_NAN_MAX = """
// The larger of two; NaN if either is NaN, as torch has it.
template <typename T> static inline T nan_max(T a, T b) {
    const T larger = a > b ? a : b;
    return a != a ? a : larger;
}
"""

_NAN_MIN = """
// The smaller of two; NaN if either is NaN, as torch has it.
template <typename T> static inline T nan_min(T a, T b) {
    const T smaller = a < b ? a : b;
    return a != a ? a : smaller;
}
"""

_FLOOR_DIVIDE = """
static inline int64_t floor_divide(int64_t a, int64_t b) {
    const int64_t quotient = a / b;
    return quotient - ((a % b != 0) && ((a < 0) != (b < 0)));
}
"""

_INSIDE = """
// Where a loop up to `end` meets a seam.
static inline int64_t inside(int64_t seam, int64_t end) {
    return seam < 0 ? 0 : seam < end ? seam : end;
}
"""

_EXP_INLINE = """
// exp in float: n = round(x / ln 2), a polynomial for exp(x - n ln 2), then 2^n in two factors, so
// that results overflow to infinity and fade through the denormals as the library's do. NaN stays.
static inline float vector_exp(float x) {
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    const float n = std::nearbyint(x * 1.44269504089f);
    float r = std::fma(n, -0.693359375f, x);
    r = std::fma(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = std::fma(p, r, 1.3981999507e-3f);
    p = std::fma(p, r, 8.3334519073e-3f);
    p = std::fma(p, r, 4.1665795894e-2f);
    p = std::fma(p, r, 1.6666665459e-1f);
    p = std::fma(p, r, 5.0000001201e-1f);
    p = std::fma(p * r, r, r) + 1.0f;
    const int32_t exponent = static_cast<int32_t>(n);
    const int32_t half = exponent >> 1;
    return p * float_of_bits((half + 127) << 23) * float_of_bits((exponent - half + 127) << 23);
}
static inline double vector_exp(double x) { return std::exp(x); }
"""

_LOG_POLYNOMIAL = """
// (log(1 + f) - f + f^2 / 2) / f^3 for 1 + f in [sqrt(1/2), sqrt(2)).
static inline float log_polynomial(float f) {
    float p = 7.0376836292e-2f;
    p = std::fma(p, f, -1.1514610310e-1f);
    p = std::fma(p, f, 1.1676998740e-1f);
    p = std::fma(p, f, -1.2420140846e-1f);
    p = std::fma(p, f, 1.4249322787e-1f);
    p = std::fma(p, f, -1.6668057665e-1f);
    p = std::fma(p, f, 2.0000714765e-1f);
    p = std::fma(p, f, -2.4999993993e-1f);
    p = std::fma(p, f, 3.3333331174e-1f);
    return p;
}
"""

_LOG_INLINE = """
// log in float: the mantissa brought into [sqrt(1/2), sqrt(2)), a polynomial there, and the
// exponent times ln 2.
static inline float vector_log(float x) {
    const bool denormal = x < 1.17549435e-38f;
    const float scaled = denormal ? x * 8388608.0f : x;
    const int32_t bits = bits_of_float(scaled) - 0x3f3504f3;
    const int32_t exponent = bits >> 23;
    const float f = float_of_bits((bits & 0x007fffff) + 0x3f3504f3) - 1.0f;
    const float e = static_cast<float>(exponent) - (denormal ? 23.0f : 0.0f);
    const float p = log_polynomial(f);
    const float z = f * f;
    float y = f * z * p;
    y = std::fma(e, -2.12194440e-4f, y);
    y = std::fma(-0.5f, z, y);
    float result = std::fma(e, 0.693359375f, f + y);
    result = x == 0.0f ? -INFINITY : result;
    result = x < 0.0f ? NAN : result;
    return (x == INFINITY || x != x) ? x : result;
}
static inline double vector_log(double x) { return std::log(x); }
"""

_LOG1P_INLINE = """
// log(1 + x), with the part of x that the sum 1 + x rounds away put back.
static inline float vector_log1p(float x) {
    const float u = 1.0f + x;
    const float lost = x - (u - 1.0f);
    const float corrected = vector_log(u) + (u > 0.0f ? lost / u : 0.0f);
    return u == INFINITY ? x : corrected;
}
static inline double vector_log1p(double x) { return std::log1p(x); }
"""

_EXPM1_INLINE = """
// exp(x) - 1: a Taylor polynomial around zero, where the difference would cancel.
static inline float vector_expm1(float x) {
    float p = 1.9841270e-4f;
    p = std::fma(p, x, 1.3888889e-3f);
    p = std::fma(p, x, 8.3333333e-3f);
    p = std::fma(p, x, 4.1666667e-2f);
    p = std::fma(p, x, 1.6666667e-1f);
    p = std::fma(p, x, 5.0e-1f);
    const float near = std::fma(p * x, x, x);
    const float far = vector_exp(x) - 1.0f;
    return (x > -0.35f && x < 0.35f) ? near : far;
}
static inline double vector_expm1(double x) { return std::expm1(x); }
"""

_TANH_INLINE = """
static inline float vector_tanh(float x) {
    const float a = x < 0.0f ? -x : x;
    const float z = x * x;
    float p = -5.70498872745e-3f;
    p = std::fma(p, z, 2.06390887954e-2f);
    p = std::fma(p, z, -5.37397155531e-2f);
    p = std::fma(p, z, 1.33314422036e-1f);
    p = std::fma(p, z, -3.33332819422e-1f);
    const float near = std::fma(p * z, x, x);
    const float t = 1.0f - 2.0f / (vector_exp(2.0f * a) + 1.0f);
    const float far = x < 0.0f ? -t : t;
    return a < 0.625f ? near : far;
}
static inline double vector_tanh(double x) { return std::tanh(x); }
"""

_SIGMOID = """
template <typename T> static inline T vector_sigmoid(T x) { return T(1) / (T(1) + vector_exp(-x)); }
"""

_ERF_INLINE = """
// erf in float: a quotient of polynomials in x squared. At 4.05 the quotient lies just above 1, so
// that the last bound makes it 1 exactly: a huge x times 1 - erf(x) has to be 0.
static inline float vector_erf(float x) {
    x = 4.05f < x ? 4.05f : x;
    x = -4.05f > x ? -4.05f : x;
    const float t = x * x;
    float p = 2.02590749e-6f;
    p = std::fma(p, t, 2.84687463e-4f);
    p = std::fma(p, t, 3.80815598e-3f);
    p = std::fma(p, t, 5.28754315e-2f);
    p = std::fma(p, t, 1.91550199e-1f);
    p = std::fma(p, t, 1.12837914f);
    float q = 3.78317807e-5f;
    q = std::fma(q, t, 1.17072408e-3f);
    q = std::fma(q, t, 1.50550797e-2f);
    q = std::fma(q, t, 1.14559577e-1f);
    q = std::fma(q, t, 5.0308962e-1f);
    q = std::fma(q, t, 1.0f);
    float result = x * p / q;
    result = 1.0f < result ? 1.0f : result;
    return -1.0f > result ? -1.0f : result;
}
static inline double vector_erf(double x) { return std::erf(x); }
"""

_POW_INLINE = """
// x^y in float: 2^(y e) exp(y log m) for x = m 2^e, m in [sqrt(1/2), sqrt(2)). What y e is besides
// whole is exact, so that the error does not grow with the exponent; for |y| up to 64.
static inline float vector_pow(float x, float y) {
    const float size = std::fabs(x);
    const bool denormal = size < 1.17549435e-38f;
    const float scaled = denormal ? size * 8388608.0f : size;
    const int32_t bits = bits_of_float(scaled) - 0x3f3504f3;
    const float f = float_of_bits((bits & 0x007fffff) + 0x3f3504f3) - 1.0f;
    const float e = static_cast<float>(bits >> 23) - (denormal ? 23.0f : 0.0f);
    const float p = log_polynomial(f);
    const float z = f * f;
    const float logarithm = f + std::fma(-0.5f, z, f * z * p);
    float whole = std::nearbyint(y * e);
    const float rest = std::fma(y, e, -whole);
    const float power = vector_exp(std::fma(rest, 0.693147181f, y * logarithm));
    whole = whole > 252.0f ? 252.0f : whole;
    whole = whole < -252.0f ? -252.0f : whole;
    const int32_t exponent = static_cast<int32_t>(whole);
    const int32_t half = exponent >> 1;
    float result = power * float_of_bits((half + 127) << 23);
    result *= float_of_bits((exponent - half + 127) << 23);
    // Chosen by numbers rather than by bools, of which GCC would make masks bit by bit.
    const bool is_whole = std::nearbyint(y) == y;
    const bool is_odd = is_whole && std::nearbyint(y * 0.5f) != y * 0.5f;
    const float undefined_below = is_whole ? -INFINITY : 0.0f;
    const float at_zero = y > 0.0f ? 0.0f : INFINITY, at_infinity = y > 0.0f ? INFINITY : 0.0f;
    const int32_t sign = is_odd ? INT32_MIN : 0;
    result = x < undefined_below ? NAN : result;
    result = size == 0.0f ? at_zero : result;
    result = size == INFINITY ? at_infinity : result;
    result = float_of_bits(bits_of_float(result) ^ (bits_of_float(x) & sign));
    return x != x ? x : result;
}
static inline double vector_pow(double x, double y) { return std::pow(x, y); }
"""

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

_STREAM = """
// Copy a row from cache to memory past the caches, which spares reading the destination first.
static inline void stream_row(float* target, const float* source, int64_t count) {
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i < count && (reinterpret_cast<uintptr_t>(target + i) & 63); ++i) target[i] = source[i];
    for (; i + 16 <= count; i += 16) _mm512_stream_ps(target + i, _mm512_loadu_ps(source + i));
#elif defined(__AVX__)
    for (; i < count && (reinterpret_cast<uintptr_t>(target + i) & 31); ++i) target[i] = source[i];
    for (; i + 8 <= count; i += 8) _mm256_stream_ps(target + i, _mm256_loadu_ps(source + i));
#endif
    for (; i < count; ++i) target[i] = source[i];
}
"""

_ALWAYS: dict[str, str] = {
    "float_of_bits": _BITS,
    "nan_max": _NAN_MAX,
    "nan_min": _NAN_MIN,
    "floor_divide": _FLOOR_DIVIDE,
    "inside": _INSIDE,
    "bfloat16": _BFLOAT16,
    "float16": _FLOAT16,
    "float_of_half": _FLOAT16,
    "half_of": _FLOAT16,
    "widen_halves": _WIDEN_HALVES,
    "narrow_halves": _WIDEN_HALVES,
    "stream_row": _STREAM,
    "log_polynomial": _LOG_POLYNOMIAL,
}
_INLINE: dict[str, str] = {
    "vector_exp": _EXP_INLINE,
    "vector_log": _LOG_INLINE,
    "vector_log1p": _LOG1P_INLINE,
    "vector_expm1": _EXPM1_INLINE,
    "vector_tanh": _TANH_INLINE,
    "vector_erf": _ERF_INLINE,
    "vector_sigmoid": _SIGMOID,
    "vector_pow": _POW_INLINE,
}


def _library(name: str) -> str:
    return f"""
template <typename T> static inline T vector_{name}(T x) {{ return std::{name}(x); }}
"""


_LIBRARY_POW = """
template <typename T> static inline T vector_pow(T x, T y) { return std::pow(x, y); }
"""

_REDUCTIONS = """
#pragma omp declare reduction(nan_{0} : float, double : \\
    omp_out = nan_{0}(omp_out, omp_in)) initializer(omp_priv = {1})
#pragma omp declare reduction(nan_{0} : int64_t : \\
    omp_out = nan_{0}(omp_out, omp_in)) initializer(omp_priv = {2})
"""


def helpers(body: str, inline: bool, given: str = "") -> str:
    """The helpers that a kernel's text calls, and those they call, in an order that compiles.

    Those that stand in `given`, which goes before, are left out.
    """
    functions = dict(_INLINE)
    if not inline:
        names = ("exp", "log", "log1p", "expm1", "tanh", "erf")
        functions.update({f"vector_{name}": _library(name) for name in names})
        functions["vector_pow"] = _LIBRARY_POW
    known = {**_ALWAYS, **functions}
    needed: list[str] = []
    text, found = body, True
    while found:
        found = False
        for name in known:
            if name not in needed and re.search(rf"\b{name}\b", text):
                needed.append(name)
                text += known[name]
                found = True
    if any("float_of_bits" in known[n] or "bits_of_float" in known[n] for n in needed):
        needed = [*needed, "float_of_bits"]
    texts = dict.fromkeys(known[name] for name in known if name in needed)
    return "".join(text for text in texts if text not in given)


def reductions(body: str, given: str = "") -> str:
    """What OpenMP must be told of the folds that a kernel's pragmas name, after their helpers.

    What stands in `given`, which goes before, is left out.
    """
    folds = (("max", "-INFINITY", "INT64_MIN"), ("min", "INFINITY", "INT64_MAX"))
    named = [one for one in folds if f"reduction(nan_{one[0]}" in body]
    texts = [_REDUCTIONS.format(*one) for one in named]
    return "".join(text for text in texts if text not in given)
