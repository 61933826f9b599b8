"""C++ of a convolution on channels-last images: pixels by filters, windows read in place.

The channels of neighbouring pixels lie one after the other, so that a row of a window is one run of
memory: a product's depth, with no packing of windows.
"""

STRIP_CPP = r"""
struct Shape { int64_t images, height, width, out_height, out_width; };

// A row of the window is a run of floats where its pixels are neighbours, else a pixel is.
constexpr int64_t RUNS = DW == 1 ? 1 : KW, RUN = DW == 1 ? KW * CHANNELS : CHANNELS;
constexpr int64_t DEPTH = KH * RUNS * RUN;
constexpr int64_t PANELS = (FILTERS + TILE_COLUMNS - 1) / TILE_COLUMNS;
// So many products are added up in a register before they join the others: short sums are exact.
// With 128 they err as little as oneDNN's; with 256 by a third more.
constexpr int64_t SHORT = 128;

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Filters side by side for vectors: [panel][depth][TILE_COLUMNS], zeros behind the last filter.
static void pack(const float* weight, float* packed) {
#pragma omp parallel for schedule(static) if (DEPTH * FILTERS > 16384)
    for (int64_t panel = 0; panel < PANELS; ++panel) {
        float* to = packed + panel * DEPTH * TILE_COLUMNS;
        for (int64_t j = 0; j < TILE_COLUMNS; ++j) {
            const int64_t f = panel * TILE_COLUMNS + j;
            for (int64_t h = 0; h < KH; ++h)
                for (int64_t w = 0; w < KW; ++w)
                    for (int64_t c = 0; c < CHANNELS; ++c)
                        to[((h * KW + w) * CHANNELS + c) * TILE_COLUMNS + j] =
                            f < FILTERS ? weight[((f * CHANNELS + c) * KH + h) * KW + w] : 0;
        }
    }
}

// TILE_ROWS pixels, whose windows begin at `base`, by the filters of one panel. `row` floats lie
// between two rows of the image; `rows` x `columns` of the product are written.
static __attribute__((noinline)) void pixels_product(
        const float* const* base, int64_t row, const float* __restrict__ panel,
        const float* bias, float* __restrict__ out, int64_t rows, int64_t columns) {
    vector_t total[TILE_ROWS][2] = {}, sum[TILE_ROWS][2] = {};
    for (int64_t h = 0; h < KH; ++h)
        for (int64_t w = 0; w < RUNS; ++w)
            for (int64_t first = 0; first < RUN; first += SHORT) {
                const int64_t shift = h * DH * row + w * DW * CHANNELS + first;
                const int64_t count = smaller(SHORT, RUN - first);
                const float* at[TILE_ROWS];
#pragma GCC unroll 16
                for (int64_t i = 0; i < TILE_ROWS; ++i) at[i] = base[i] + shift;
                for (int64_t k = 0; k < count; ++k, panel += TILE_COLUMNS) {
                    const vector_t b0 = *(const vector_t*)panel;
                    const vector_t b1 = *(const vector_t*)(panel + VECTOR);
#pragma GCC unroll 16
                    for (int64_t i = 0; i < TILE_ROWS; ++i) {
                        const float value = at[i][k];
                        sum[i][0] += value * b0;
                        sum[i][1] += value * b1;
                    }
                }
                if (DEPTH <= SHORT) continue;
#pragma GCC unroll 16
                for (int64_t i = 0; i < TILE_ROWS; ++i) {
                    total[i][0] += sum[i][0];
                    total[i][1] += sum[i][1];
                    sum[i][0] = sum[i][1] = vector_t{};
                }
            }
    // The bias is added last, and once: in a sum that began with it each product would be rounded
    // to its bits.
    const vector_t added[2] = {*(const vector_t*)bias, *(const vector_t*)(bias + VECTOR)};
#pragma GCC unroll 16
    for (int64_t i = 0; i < TILE_ROWS; ++i) {
        total[i][0] = total[i][0] + sum[i][0] + added[0];
        total[i][1] = total[i][1] + sum[i][1] + added[1];
    }
    if (columns == TILE_COLUMNS) {
        for (int64_t i = 0; i < rows; ++i) {
            *(vector_t*)(out + i * FILTERS) = total[i][0];
            *(vector_t*)(out + i * FILTERS + VECTOR) = total[i][1];
        }
        return;
    }
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
            out[i * FILTERS + j] = total[i][j / VECTOR][j % VECTOR];
}

// Rows [top, top + count) of an image with its padding, from column -PW on.
static void stage(
        const float* image, const Shape& s, int64_t top, int64_t count, int64_t wide, float* to) {
    const int64_t left = smaller(PW, wide), inside = larger(0, smaller(s.width, wide - left));
    for (int64_t r = 0; r < count; ++r, to += wide * CHANNELS) {
        const int64_t h = top + r;
        if (h < 0 || h >= s.height) {
            std::memset(to, 0, wide * CHANNELS * sizeof(float));
            continue;
        }
        std::memset(to, 0, left * CHANNELS * sizeof(float));
        std::memcpy(to + left * CHANNELS, image + h * s.width * CHANNELS,
                    inside * CHANNELS * sizeof(float));
        std::memset(to + (left + inside) * CHANNELS, 0,
                    (wide - left - inside) * CHANNELS * sizeof(float));
    }
}

// All filters at the pixels of a strip; the window of pixel q begins at window + begins[q].
static void strip_product(
        const float* window, const int64_t* begins, int64_t pixels, int64_t row,
        const float* packed, const float* bias, float* out) {
    for (int64_t panel = 0; panel < PANELS; ++panel)
        for (int64_t p = 0; p < pixels; p += TILE_ROWS) {
            const float* base[TILE_ROWS];
            for (int64_t i = 0; i < TILE_ROWS; ++i)
                base[i] = window + begins[smaller(p + i, pixels - 1)];
            pixels_product(
                base, row, packed + panel * DEPTH * TILE_COLUMNS, bias + panel * TILE_COLUMNS,
                out + p * FILTERS + panel * TILE_COLUMNS, smaller(TILE_ROWS, pixels - p),
                smaller(TILE_COLUMNS, FILTERS - panel * TILE_COLUMNS));
        }
}
"""

DIRECT_CPP = r"""
// What a thread stages of an image stays in its second-level cache, and so does what it computes.
constexpr int64_t STAGED = 40 << 10;

// `result` has room for everything, or is null where `finish` takes each strip from the cache.
template <typename Finish>
static void convolve(
        const float* x, const float* weight, const float* bias, float* result, Shape s,
        const Finish& finish) {
    std::vector<float> packed(PANELS * DEPTH * TILE_COLUMNS), added(PANELS * TILE_COLUMNS);
    pack(weight, packed.data());
    if (bias) std::memcpy(added.data(), bias, FILTERS * sizeof(float));
    const int64_t wide = PADDED ? (s.out_width - 1) * SW + (KW - 1) * DW + 1 : s.width;
    const int64_t row = wide * CHANNELS, threads = omp_get_max_threads();
    const int64_t each = larger(SH * row, s.out_width * FILTERS);
    int64_t high = larger(1, smaller(s.out_height, STAGED / larger(1, each)));
    while (high > 1 && s.images * ((s.out_height + high - 1) / high) < 2 * threads) high /= 2;
    const int64_t strips = (s.out_height + high - 1) / high;
    const int64_t in_rows = (high - 1) * SH + (KH - 1) * DH + 1;
#pragma omp parallel
    {
        std::vector<float> staged(PADDED ? in_rows * row : 0);
        std::vector<float> made(result ? 0 : high * s.out_width * FILTERS);
        std::vector<int64_t> begins(high * s.out_width);
        for (int64_t q = 0; q < high * s.out_width; ++q)
            begins[q] = q / s.out_width * SH * row + q % s.out_width * SW * CHANNELS;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < s.images * strips; ++task) {
            const int64_t image = task / strips, first = task % strips * high;
            const int64_t many = smaller(high, s.out_height - first), pixels = many * s.out_width;
            const float* from = x + image * s.height * s.width * CHANNELS;
            const float* window = from + first * SH * row;
            if (PADDED) {
                stage(from, s, first * SH - PH, (many - 1) * SH + (KH - 1) * DH + 1, wide,
                      staged.data());
                window = staged.data();
            }
            const int64_t unit = (image * s.out_height + first) * s.out_width;
            float* out = result ? result + unit * FILTERS : made.data();
            strip_product(
                window, begins.data(), pixels, row, packed.data(), added.data(), out);
            finish(out, unit, unit + pixels);
        }
    }
}
"""
