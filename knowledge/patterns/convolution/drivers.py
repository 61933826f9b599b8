"""C++ around the register tile: who computes which block, and when it is finished.

Both texts define `convolve(...)`; `kernels.py` puts the constants and `WINDOWS_CPP` before them and
an `extern "C"` function behind. What is done to finished units is handed over as a function object
`finish(block, first, last)`: units [first, last), which lie at `block`.
"""

GEMM_CPP = r"""
struct Shape {
    Extent in, out, staged;
    int64_t plane;       // floats between two staged channels
    int64_t positions;   // of one slice in d, those at the ends of staged rows included
    bool copied, dense;  // whether images are staged; whether all positions are outputs
    int64_t offsets[TAPS];
};

static inline Shape shape_of(Extent in, Extent out) {
    Shape s = {in, out, in, in.size(), 0, true, false, {}};
    s.positions = (out.h - 1) * in.w + out.w;
    // Without padding and stride an image is read where it lies. The last tile then starts early
    // enough to end with the image, which takes a tile's width.
    s.copied = PADDED || SD * SH * SW > 1 || s.positions < COLUMNS;
    if (s.copied) {
        s.staged = staged_extent(in, out);
        s.plane = PHASES * s.staged.size();
        s.positions = (out.h - 1) * s.staged.w + out.w;
    }
    s.dense = s.staged.w == out.w || out.h == 1;
    tap_offsets(s.staged, s.offsets);
    return s;
}

// One tile of filters at positions [first, end) of one slice; `to` is where its first output goes.
static void convolve_block(
        const Shape& s, const float* a, const float* b, const float* start, int64_t first,
        int64_t end, int64_t rows, float* scratch, float* to) {
    const int64_t padded = parts(end - first, COLUMNS) * COLUMNS;
    float* c = s.dense ? to + first : scratch;
    const int64_t stride = s.dense ? s.out.size() : padded;
    for (int64_t k = 0; k < CHANNELS; k += CHANNEL_BLOCK)
        for (int64_t p = first; p < end; p += COLUMNS) {
            const int64_t excess = larger(0, p + COLUMNS - end), back = s.copied ? 0 : excess;
            window_product(
                smaller(CHANNEL_BLOCK, CHANNELS - k), a + k * TAPS * ROWS,
                b + k * s.plane + p - back, s.plane, s.offsets, k ? nullptr : start,
                c + p - first - back, stride, s.dense ? rows : ROWS, back,
                s.dense ? COLUMNS - excess + back : COLUMNS);
        }
    if (s.dense) return;
    const int64_t top = first / s.staged.w, bottom = parts(end, s.staged.w);
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t y = top; y < bottom; ++y) {
            const float* __restrict__ from = c + i * padded + (y - top) * s.staged.w;
            float* __restrict__ line = to + i * s.out.size() + y * s.out.w;
#pragma omp simd
            for (int64_t w = 0; w < s.out.w; ++w) line[w] = from[w];
        }
}

// Positions in a block: whole rows, few enough for the second-level cache, and blocks enough for
// all threads where a plane may be cut.
static inline int64_t block_step(const Shape& s, int64_t tasks, int64_t threads) {
    const int64_t unit = s.dense ? COLUMNS : s.staged.w;
    const int64_t wanted = larger(1, parts(4 * threads, tasks));
    const int64_t most = larger(1, 4096 / unit), even = parts(parts(s.positions, unit), wanted);
    return unit * larger(parts(256, unit), smaller(most, even));
}

// `result` has room for all images, or where `later` for as many as are computed together.
template <typename Finish>
static void convolve(
        const float* input, const float* weight, const float* bias, float* result, int64_t images,
        Extent in, Extent out, const Finish& finish) {
    const Shape s = shape_of(in, out);
    const int64_t threads = omp_get_max_threads(), inputs = GROUPS * CHANNELS;
    const int64_t outputs = GROUPS * FILTERS, size = out.size();
    // Images are taken a few at a time, so that what is staged of them stays in cache.
    const int64_t kept = (s.copied ? inputs * s.plane : 0) + (UNITS == 1 ? outputs * size : 0);
    const int64_t together =
        kept ? smaller(images, larger(threads, threads * (1 << 17) / kept)) : images;
    // Planes are finished one tile at a time where there are tiles enough to go round.
    const bool at_once = UNITS == 2 && together * GROUPS * TILES >= 3 * threads;
    const bool later = UNITS > 0 && !at_once;
    const int64_t step = block_step(s, at_once ? threads * 4 : together * GROUPS * TILES, threads);
    const int64_t blocks = parts(s.positions, step), each = at_once ? 1 : blocks * out.d;
    const int64_t room = s.dense ? 1 : ROWS * (step + COLUMNS);
    std::unique_ptr<float[]> panels(new float[GROUPS * TILES * ROWS * DEPTH]);
    std::unique_ptr<float[]> staged(new float[s.copied ? together * inputs * s.plane + SLACK : 1]);
    std::unique_ptr<float[]> block(new float[later ? together * outputs * size : 1]);
#pragma omp parallel
    {
        std::unique_ptr<float[]> scratch(new float[room]);
        std::unique_ptr<float[]> planes(new float[at_once ? ROWS * size : 1]);
#pragma omp for
        for (int64_t at = 0; at < GROUPS * TILES; ++at)
            pack_filters(
                weight + at / TILES * FILTERS * DEPTH, at % TILES, &panels[at * ROWS * DEPTH]);
        for (int64_t done = 0; done < images; done += together) {
            const int64_t count = smaller(together, images - done);
            if (s.copied) {
#pragma omp for
                for (int64_t at = 0; at < count * inputs; ++at) {
                    stage(input + (done * inputs + at) * in.size(), in, s.staged,
                          &staged[at * s.plane], done == 0);
                    if (at == count * inputs - 1)
                        std::fill_n(&staged[(at + 1) * s.plane], SLACK, 0.0f);
                }
            }
            const float* first = s.copied ? staged.get() : input + done * inputs * s.plane;
#pragma omp for schedule(dynamic)
            for (int64_t at = 0; at < count * GROUPS * TILES * each; ++at) {
                const int64_t image = at / each / (GROUPS * TILES);
                const int64_t tile = at / each % (GROUPS * TILES);
                const int64_t group = tile / TILES, filter = tile % TILES * ROWS;
                const int64_t rows = smaller(ROWS, FILTERS - filter);
                const int64_t unit = group * FILTERS + filter;
                float start[ROWS] = {};
                if (bias) std::copy_n(bias + unit, rows, start);
                const float* b = first + (image * inputs + group * CHANNELS) * s.plane;
                float* to = at_once ? planes.get()
                    : later ? &block[(image * outputs + unit) * size]
                            : result + ((done + image) * outputs + unit) * size;
                const int64_t from = at_once ? 0 : at % each;
                const int64_t end = at_once ? blocks * out.d : from + 1;
                for (int64_t part = from; part < end; ++part) {
                    const int64_t z = part / blocks, p = part % blocks * step;
                    const int64_t gap = s.dense ? 0 : s.staged.w - out.w;
                    convolve_block(
                        s, &panels[tile * ROWS * DEPTH], b + z * s.staged.h * s.staged.w, start, p,
                        smaller(p + step - gap, s.positions), rows, scratch.get(),
                        to + z * out.h * out.w);
                }
                const int64_t plane = (done + image) * outputs + unit;
                if (at_once) finish(planes.get(), plane, plane + rows);
            }
            if (later) {
                const int64_t units = UNITS == 1 ? 1 : outputs, unit_size = outputs / units * size;
#pragma omp for
                for (int64_t at = 0; at < count * units; ++at)
                    finish(&block[at * unit_size], done * units + at, done * units + at + 1);
            }
        }
    }
}
"""

DIRECT_CPP = r"""
// LINES output rows by WIDE vectors of one plane. Everything is unrolled, so that the compiler sees
// where rows share what they load.
template <int64_t LINES, int64_t WIDE>
static inline void direct_block(
        const float* __restrict__ from, Extent s, const float* __restrict__ filter, float start,
        float* __restrict__ to, int64_t width, int64_t columns) {
    vector_t sum[LINES][WIDE];
#pragma GCC unroll 16
    for (int64_t i = 0; i < LINES; ++i)
#pragma GCC unroll 4
        for (int64_t j = 0; j < WIDE; ++j) sum[i][j] = (vector_t){} + start;
    for (int64_t d = 0; d < KD; ++d)
#pragma GCC unroll 16
        for (int64_t h = 0; h < KH; ++h)
#pragma GCC unroll 16
            for (int64_t w = 0; w < KW; ++w) {
                const int64_t phase =
                    (d * DD % SD * PHASES_H + h * DH % SH) * PHASES_W + w * DW % SW;
                const float* tap = from + phase * s.size() + d * DD / SD * s.h * s.w + w * DW / SW;
                const float value = filter[(d * KH + h) * KW + w];
#pragma GCC unroll 16
                for (int64_t i = 0; i < LINES; ++i)
#pragma GCC unroll 4
                    for (int64_t j = 0; j < WIDE; ++j) {
                        const float* at = tap + (h * DH / SH + i) * s.w + j * VECTOR;
                        sum[i][j] += value * *(const vector_t*)at;
                    }
            }
#pragma GCC unroll 16
    for (int64_t i = 0; i < LINES; ++i) {
        if (columns == WIDE * VECTOR) {
#pragma GCC unroll 4
            for (int64_t j = 0; j < WIDE; ++j)
                *(vector_t*)(to + i * width + j * VECTOR) = sum[i][j];
        } else {
            std::memcpy(to + i * width, sum[i], columns * sizeof(float));
        }
    }
}

// One slice in d. The last rows are computed with those before them, some of them a second time.
template <int64_t LINES, int64_t WIDE>
static inline void direct_slice(
        const float* from, Extent s, const float* filter, float start, float* to, Extent out) {
    for (int64_t line = 0; line < out.h; line += LINES) {
        const int64_t h = smaller(line, out.h - LINES);
        const float* at = from + h * s.w;
        float* row = to + h * out.w;
        int64_t w = 0;
        for (; out.w - w > (WIDE - 1) * VECTOR; w += WIDE * VECTOR)
            direct_block<LINES, WIDE>(
                at + w, s, filter, start, row + w, out.w, smaller(WIDE * VECTOR, out.w - w));
        for (; w < out.w; w += VECTOR)
            direct_block<LINES, 1>(
                at + w, s, filter, start, row + w, out.w, smaller(VECTOR, out.w - w));
    }
}

static void direct_plane(
        const float* from, Extent s, const float* filter, float start, float* to, Extent out) {
    for (int64_t d = 0; d < out.d; ++d, from += s.h * s.w, to += out.h * out.w) {
        if (out.h >= 8 && out.w <= VECTOR)
            direct_slice<8, 1>(from, s, filter, start, to, out);
        else if (out.h >= 4)
            direct_slice<4, 2>(from, s, filter, start, to, out);
        else
            direct_slice<1, 4>(from, s, filter, start, to, out);
    }
}

template <typename Finish>
static void convolve(
        const float* input, const float* weight, const float* bias, float* result, int64_t images,
        Extent in, Extent out, const Finish& finish) {
    const Extent s = staged_extent(in, out);
    const int64_t plane = PHASES * s.size(), size = out.size(), threads = omp_get_max_threads();
    const int64_t outputs = GROUPS * FILTERS;
    const int64_t together = UNITS == 1
        ? smaller(images, larger(threads, threads * (1 << 17) / (outputs * size))) : images;
    std::unique_ptr<float[]> block(new float[UNITS == 1 ? together * outputs * size : 1]);
#pragma omp parallel
    {
        std::unique_ptr<float[]> staged(new float[plane + SLACK]);
        std::unique_ptr<float[]> scratch(new float[UNITS == 2 ? FILTERS * size : 1]);
        std::fill_n(staged.get(), plane + SLACK, 0.0f);
        for (int64_t done = 0; done < images; done += together) {
            const int64_t count = smaller(together, images - done);
#pragma omp for
            for (int64_t at = 0; at < count * GROUPS; ++at) {
                stage(input + (done * GROUPS + at) * in.size(), in, s, staged.get(), false);
                const int64_t unit = (done * GROUPS + at) * FILTERS;
                float* to = UNITS == 2 ? scratch.get()
                    : UNITS == 1 ? &block[at * FILTERS * size] : result + unit * size;
                for (int64_t i = 0; i < FILTERS; ++i) {
                    const int64_t filter = at % GROUPS * FILTERS + i;
                    direct_plane(
                        staged.get(), s, weight + filter * TAPS, bias ? bias[filter] : 0.0f,
                        to + i * size, out);
                }
                if (UNITS == 2) finish(scratch.get(), unit, unit + FILTERS);
            }
            if (UNITS == 1) {
#pragma omp for
                for (int64_t at = 0; at < count; ++at)
                    finish(&block[at * outputs * size], done + at, done + at + 1);
            }
        }
    }
}
"""
