"""C++ of a 3x3 convolution by Winograd's F(2x2, 3x3): 16 products in place of 36 for four pixels.

An input tile of 4x4 pixels and a filter are transformed, multiplied element by element and summed
over channels (16 matrix products), and transformed back to 2x2 pixels. The transforms mix the
pixels of a tile, so that a value that isn't finite would spread to pixels whose window it is not
in: strips that hold one are convolved directly.
"""

WINOGRAD_CPP = r"""
constexpr int64_t BLOCK = 4 * TILE_ROWS;
// Transformed pixels of a strip: they stay in the second-level cache.
constexpr int64_t TRANSFORMED = 96 << 10;
static_assert(CHANNELS % VECTOR == 0, "vectors of channels");

// Weights transformed: [panel][16][channel][TILE_COLUMNS]. Are they all finite?
static bool transform_weights(const float* weight, float* packed) {
    bool finite = true;
#pragma omp parallel for collapse(2) schedule(static) reduction(&& : finite)
    for (int64_t panel = 0; panel < PANELS; ++panel)
        for (int64_t c = 0; c < CHANNELS; ++c) {
            float g[9][TILE_COLUMNS], zero = 0;
            for (int64_t j = 0; j < TILE_COLUMNS; ++j) {
                const int64_t f = panel * TILE_COLUMNS + j;
                for (int64_t t = 0; t < 9; ++t)
                    g[t][j] = f < FILTERS ? weight[(f * CHANNELS + c) * 9 + t] : 0;
                for (int64_t t = 0; t < 9; ++t) zero += g[t][j] * 0;
            }
            finite = finite && zero == 0;
            float half[4][3][TILE_COLUMNS];
            float* to = packed + (panel * 16 * CHANNELS + c) * TILE_COLUMNS;
            for (int64_t w = 0; w < 3; ++w)
#pragma omp simd
                for (int64_t j = 0; j < TILE_COLUMNS; ++j) {
                    const float outer = g[w][j] + g[6 + w][j];
                    half[0][w][j] = g[w][j];
                    half[1][w][j] = 0.5f * (outer + g[3 + w][j]);
                    half[2][w][j] = 0.5f * (outer - g[3 + w][j]);
                    half[3][w][j] = g[6 + w][j];
                }
            for (int64_t h = 0; h < 4; ++h) {
                float* line = to + 4 * h * CHANNELS * TILE_COLUMNS;
#pragma omp simd
                for (int64_t j = 0; j < TILE_COLUMNS; ++j) {
                    const float outer = half[h][0][j] + half[h][2][j];
                    line[j] = half[h][0][j];
                    line[CHANNELS * TILE_COLUMNS + j] = 0.5f * (outer + half[h][1][j]);
                    line[2 * CHANNELS * TILE_COLUMNS + j] = 0.5f * (outer - half[h][1][j]);
                    line[3 * CHANNELS * TILE_COLUMNS + j] = half[h][2][j];
                }
            }
        }
    return finite;
}

// One tile of 4x4 pixels, `row` floats between its rows, to 16 places `plane` floats apart.
// Adds to `zero` what is NaN where a pixel is not finite.
static inline void transform_tile(
        const float* pixels, int64_t row, float* __restrict__ to, int64_t plane, vector_t& zero) {
    for (int64_t c = 0; c < CHANNELS; c += VECTOR) {
        vector_t d[4][4], t[4][4];
#pragma GCC unroll 4
        for (int64_t h = 0; h < 4; ++h)
#pragma GCC unroll 4
            for (int64_t w = 0; w < 4; ++w) {
                d[h][w] = *(const vector_t*)(pixels + h * row + w * CHANNELS + c);
                zero += d[h][w] * 0.0f;
            }
#pragma GCC unroll 4
        for (int64_t w = 0; w < 4; ++w) {
            t[0][w] = d[0][w] - d[2][w];
            t[1][w] = d[1][w] + d[2][w];
            t[2][w] = d[2][w] - d[1][w];
            t[3][w] = d[1][w] - d[3][w];
        }
#pragma GCC unroll 4
        for (int64_t h = 0; h < 4; ++h) {
            *(vector_t*)(to + (4 * h) * plane + c) = t[h][0] - t[h][2];
            *(vector_t*)(to + (4 * h + 1) * plane + c) = t[h][1] + t[h][2];
            *(vector_t*)(to + (4 * h + 2) * plane + c) = t[h][2] - t[h][1];
            *(vector_t*)(to + (4 * h + 3) * plane + c) = t[h][1] - t[h][3];
        }
    }
}

// TILE_ROWS tiles by the filters of a panel, for one of the 16 places.
static __attribute__((noinline)) void tiles_product(
        const float* __restrict__ v, const float* __restrict__ u, float* __restrict__ m) {
    vector_t total[TILE_ROWS][2] = {};
    for (int64_t first = 0; first < CHANNELS; first += SHORT) {
        const int64_t count = smaller(SHORT, CHANNELS - first);
        vector_t sum[TILE_ROWS][2] = {};
        for (int64_t k = 0; k < count; ++k, ++v, u += TILE_COLUMNS) {
            const vector_t b0 = *(const vector_t*)u, b1 = *(const vector_t*)(u + VECTOR);
#pragma GCC unroll 16
            for (int64_t i = 0; i < TILE_ROWS; ++i) {
                const float value = v[i * CHANNELS];
                sum[i][0] += value * b0;
                sum[i][1] += value * b1;
            }
        }
#pragma GCC unroll 16
        for (int64_t i = 0; i < TILE_ROWS; ++i) {
            total[i][0] += sum[i][0];
            total[i][1] += sum[i][1];
        }
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < TILE_ROWS; ++i) {
        *(vector_t*)(m + i * TILE_COLUMNS) = total[i][0];
        *(vector_t*)(m + i * TILE_COLUMNS + VECTOR) = total[i][1];
    }
}

// A tile's 2x2 pixels of one vector of filters; `m` holds its 16 places, BLOCK rows apart.
static inline void back(const float* m, const float* start, vector_t y[2][2]) {
    constexpr int64_t PLACE = BLOCK * TILE_COLUMNS;
    const vector_t bias = *(const vector_t*)start;
    vector_t s[2][4];
#pragma GCC unroll 4
    for (int64_t w = 0; w < 4; ++w) {
        const vector_t m0 = *(const vector_t*)(m + w * PLACE);
        const vector_t m1 = *(const vector_t*)(m + (4 + w) * PLACE);
        const vector_t m2 = *(const vector_t*)(m + (8 + w) * PLACE);
        const vector_t m3 = *(const vector_t*)(m + (12 + w) * PLACE);
        s[0][w] = m0 + m1 + m2;
        s[1][w] = m1 - m2 - m3;
    }
    for (int64_t h = 0; h < 2; ++h) {
        y[h][0] = s[h][0] + s[h][1] + s[h][2] + bias;
        y[h][1] = s[h][1] - s[h][2] - s[h][3] + bias;
    }
}

// Where a strip's pixels go: `many` rows of `wide` pixels.
struct Strip { float* out; int64_t many, wide, tiles_wide, tiles; };

static void put_back(
        const Strip& s, const float* m, const float* start, int64_t panel, int64_t first,
        int64_t count) {
    const int64_t columns = smaller(TILE_COLUMNS, FILTERS - panel * TILE_COLUMNS);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t top = (first + i) / s.tiles_wide * 2, left = (first + i) % s.tiles_wide * 2;
        for (int64_t j = 0; j < columns; j += VECTOR) {
            vector_t y[2][2];
            back(m + i * TILE_COLUMNS + j, start + j, y);
            for (int64_t h = 0; h < 2 && top + h < s.many; ++h)
                for (int64_t w = 0; w < 2 && left + w < s.wide; ++w) {
                    float* to = s.out + ((top + h) * s.wide + left + w) * FILTERS
                        + panel * TILE_COLUMNS + j;
                    if (j + VECTOR <= columns) *(vector_t*)to = y[h][w];
                    else for (int64_t k = 0; k < columns - j; ++k) to[k] = y[h][w][k];
                }
        }
    }
}

// `v` has TILE_ROWS tiles more than the strip, so that the last block reads what is its own.
static void strip_by_tiles(
        const Strip& s, const float* v, int64_t plane, const float* packed, const float* start,
        float* m) {
    for (int64_t panel = 0; panel < PANELS; ++panel)
        for (int64_t first = 0; first < s.tiles; first += BLOCK) {
            const int64_t count = smaller(BLOCK, s.tiles - first);
            for (int64_t place = 0; place < 16; ++place)
                for (int64_t i = 0; i < count; i += TILE_ROWS)
                    tiles_product(
                        v + place * plane + (first + i) * CHANNELS,
                        packed + (panel * 16 + place) * CHANNELS * TILE_COLUMNS,
                        m + (place * BLOCK + i) * TILE_COLUMNS);
            put_back(s, m, start + panel * TILE_COLUMNS, panel, first, count);
        }
}

// `result` has room for everything, or is null where `finish` takes each strip from the cache.
template <typename Finish>
static void convolve(
        const float* x, const float* weight, const float* bias, float* result, Shape s,
        const Finish& finish) {
    std::vector<float> packed(PANELS * 16 * CHANNELS * TILE_COLUMNS), direct;
    std::vector<float> start(PANELS * TILE_COLUMNS);
    const bool finite = transform_weights(weight, packed.data());
    std::once_flag once;
    if (bias) std::memcpy(start.data(), bias, FILTERS * sizeof(float));
    const int64_t tiles_wide = (s.out_width + 1) / 2, tiles_high = (s.out_height + 1) / 2;
    const int64_t wide = 2 * tiles_wide + 2, row = wide * CHANNELS;
    const int64_t threads = omp_get_max_threads();
    int64_t high = TRANSFORMED / (16 * tiles_wide * CHANNELS);
    high = larger(1, smaller(tiles_high, high));
    while (high > 1 && s.images * ((tiles_high + high - 1) / high) < 2 * threads) high /= 2;
    const int64_t strips = (tiles_high + high - 1) / high;
    // One line of cache more, so that the 16 places of a tile do not fall on the same sets.
    const int64_t plane = (high * tiles_wide + TILE_ROWS) * CHANNELS + 16;
#pragma omp parallel
    {
        std::vector<float> staged((2 * high + 2) * row), v(16 * plane);
        std::vector<float> m(16 * BLOCK * TILE_COLUMNS);
        std::vector<float> made(result ? 0 : 2 * high * s.out_width * FILTERS);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < s.images * strips; ++task) {
            const int64_t image = task / strips, first = task % strips * high * 2;
            const int64_t many = smaller(2 * high, s.out_height - first);
            const int64_t pixels = many * s.out_width, tiles = (many + 1) / 2 * tiles_wide;
            const float* from = x + image * s.height * s.width * CHANNELS;
            stage(from, s, first - PH, (many + 1) / 2 * 2 + 2, wide, staged.data());
            const int64_t unit = (image * s.out_height + first) * s.out_width;
            float* out = result ? result + unit * FILTERS : made.data();
            vector_t zero = {};
            for (int64_t t = 0; t < tiles; ++t)
                transform_tile(
                    staged.data() + t / tiles_wide * 2 * row + t % tiles_wide * 2 * CHANNELS, row,
                    v.data() + t * CHANNELS, plane, zero);
            bool plain = finite;
            for (int64_t lane = 0; lane < VECTOR; ++lane) plain = plain && zero[lane] == 0;
            if (plain) {
                const Strip strip = {out, many, s.out_width, tiles_wide, tiles};
                strip_by_tiles(strip, v.data(), plane, packed.data(), start.data(), m.data());
            } else {
                std::call_once(once, [&] {
                    direct.resize(PANELS * DEPTH * TILE_COLUMNS);
                    pack(weight, direct.data());
                });
                std::vector<int64_t> begins(pixels);
                for (int64_t q = 0; q < pixels; ++q)
                    begins[q] = q / s.out_width * row + q % s.out_width * CHANNELS;
                strip_product(staged.data(), begins.data(), pixels, row, direct.data(),
                              start.data(), out);
            }
            finish(out, unit, unit + pixels);
        }
    }
}
"""
