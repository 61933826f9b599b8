"""C++ of a convolution that filters every channel on its own: vectors run along channels."""

DEPTHWISE_CPP = r"""
struct Shape { int64_t images, height, width, out_height, out_width; };

constexpr int64_t STRIP = 16 << 10;

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// The part of a window along one axis that lies in the image: taps [first, last).
struct Taps { int64_t first, last; };
template <int64_t KERNEL, int64_t DILATION>
static inline Taps inside(int64_t begin, int64_t size) {
    const int64_t first = begin < 0 ? (-begin + DILATION - 1) / DILATION : 0;
    const int64_t last = size > begin ? (size - begin + DILATION - 1) / DILATION : 0;
    return {smaller(first, KERNEL), smaller(last, KERNEL)};
}

// One pixel: the window begins at `window`, which may lie outside of the image; taps of it don't.
// The bias is added last, and once, as in other convolutions.
template <bool WHOLE>
static inline void pixel(
        const float* window, int64_t row, const float* __restrict__ packed, const float* bias,
        float* __restrict__ out, Taps high, Taps wide) {
    if (WHOLE) high = {0, KH}, wide = {0, KW};
    int64_t c = 0;
    for (; c + VECTOR <= CHANNELS; c += VECTOR) {
        vector_t sum = {};
        for (int64_t h = high.first; h < high.last; ++h)
#pragma GCC unroll 4
            for (int64_t w = wide.first; w < wide.last; ++w)
                sum += *(const vector_t*)(window + h * DH * row + w * DW * CHANNELS + c)
                    * *(const vector_t*)(packed + (h * KW + w) * CHANNELS + c);
        *(vector_t*)(out + c) = sum + *(const vector_t*)(bias + c);
    }
    for (; c < CHANNELS; ++c) {
        float sum = 0;
        for (int64_t h = high.first; h < high.last; ++h)
            for (int64_t w = wide.first; w < wide.last; ++w)
                sum += window[h * DH * row + w * DW * CHANNELS + c]
                    * packed[(h * KW + w) * CHANNELS + c];
        out[c] = sum + bias[c];
    }
}

// `result` has room for everything, or is null where `finish` takes each strip from the cache.
template <typename Finish>
static void convolve(
        const float* x, const float* weight, const float* bias, float* result, Shape s,
        const Finish& finish) {
    std::vector<float> packed(KH * KW * CHANNELS), added(CHANNELS);
    for (int64_t c = 0; c < CHANNELS; ++c)
        for (int64_t t = 0; t < KH * KW; ++t) packed[t * CHANNELS + c] = weight[c * KH * KW + t];
    if (bias) std::memcpy(added.data(), bias, CHANNELS * sizeof(float));
    const int64_t row = s.width * CHANNELS, threads = omp_get_max_threads();
    int64_t high = larger(1, smaller(s.out_height, STRIP / (s.out_width * CHANNELS)));
    while (high > 1 && s.images * ((s.out_height + high - 1) / high) < 2 * threads) high /= 2;
    const int64_t strips = (s.out_height + high - 1) / high;
#pragma omp parallel
    {
        std::vector<float> made(result ? 0 : high * s.out_width * CHANNELS);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < s.images * strips; ++task) {
            const int64_t image = task / strips, first = task % strips * high;
            const int64_t many = smaller(high, s.out_height - first), pixels = many * s.out_width;
            const int64_t unit = (image * s.out_height + first) * s.out_width;
            float* out = result ? result + unit * CHANNELS : made.data();
            for (int64_t q = 0; q < pixels; ++q) {
                const int64_t h = (first + q / s.out_width) * SH - PH;
                const int64_t w = q % s.out_width * SW - PW;
                const Taps tall = inside<KH, DH>(h, s.height), wide = inside<KW, DW>(w, s.width);
                const float* window = x + image * s.height * row + h * row + w * CHANNELS;
                const bool whole = tall.last - tall.first == KH && wide.last - wide.first == KW;
                float* to = out + q * CHANNELS;
                if (whole) pixel<true>(window, row, packed.data(), added.data(), to, tall, wide);
                else pixel<false>(window, row, packed.data(), added.data(), to, tall, wide);
            }
            finish(out, unit, unit + pixels);
        }
    }
}
"""
