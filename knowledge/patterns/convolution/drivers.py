"""C++ around the register tile: who computes which block, and when it is finished.

Both texts define `convolve(...)`; `kernels.py` puts the constants and `WINDOWS_CPP` before them and
an `extern "C"` function behind. What is done to finished units is handed over as a function object
`finish(block, first, last)`: units [first, last), which lie at `block`.
"""

GEMM_CPP = r"""
// Floats that a block of outputs should read at most, so that they stay in the second-level cache
// while one tile of filters after the other goes over them; more where they are read in place, in
// long runs. And outputs that a block has at least.
constexpr int64_t STAGED_READS = 1 << 17, READS_IN_PLACE = 1 << 19, LEAST = 256;
// Pieces of work a thread, so that none waits long for the last one.
constexpr int64_t SHARES = 8;

struct Shape {
    Extent in, out, block, count;  // an image, its outputs, a block of those, and how many of it
    Extent staged;                 // of what a block reads of a channel, a phase
    int64_t plane;                 // floats between two channels
    bool copied, dense;            // whether blocks are staged; whether positions are outputs
    int64_t offsets[TAPS];

    Extent origin(int64_t at) const {
        return {at / (count.h * count.w) * block.d, at / count.w % count.h * block.h,
                at % count.w * block.w};
    }
    int64_t positions(Extent part) const { return (part.h - 1) * staged.w + part.w; }
};

static inline Extent counted(Extent out, Extent block) {
    return {parts(out.d, block.d), parts(out.h, block.h), parts(out.w, block.w)};
}

// As few equal parts of an image's outputs as are small enough, and enough for `wanted` in all.
static inline Extent block_of(Extent in, Extent out, bool copied, int64_t wanted) {
    Extent block = out;
    const int64_t most = copied ? STAGED_READS : READS_IN_PLACE;
    const auto fits = [&] {
        const int64_t reads = CHANNELS * PHASES * staged_extent(in, out, block).size();
        return reads <= most && counted(out, block).size() >= wanted;
    };
    while (!fits() && block.size() >= 2 * LEAST) {
        int64_t& cut = block.d > 1 ? block.d : block.h > 1 ? block.h : block.w;
        cut = parts(cut, 2);
    }
    return block;
}

static inline Shape shape_of(Extent in, Extent out, int64_t wanted) {
    // Without padding and stride an image is read where it lies. The last tile of a block then
    // starts early enough to end with it, which takes a tile's width.
    const bool copied = PADDED || SD * SH * SW > 1 || (out.h - 1) * in.w + out.w < COLUMNS;
    Shape s = {in, out, block_of(in, out, copied, wanted), {}, in, in.size(), copied, false, {}};
    s.count = counted(out, s.block);
    if (copied) {
        s.staged = staged_extent(in, out, s.block);
        s.plane = PHASES * s.staged.size();
    }
    s.dense = s.staged.w == out.w || s.block.h == 1;
    tap_offsets(s.staged, s.offsets);
    return s;
}

// One tile of filters over `part` of one slice; `to` is where its first output goes.
static void convolve_slice(
        const Shape& s, const float* a, const float* b, const float* bias, Extent part,
        int64_t rows, float* scratch, float* to) {
    const int64_t positions = s.positions(part), padded = parts(positions, COLUMNS) * COLUMNS;
    float* c = s.dense ? to : scratch;
    const int64_t stride = s.dense ? s.out.size() : padded;
    for (int64_t k = 0; k < CHANNELS; k += CHANNEL_BLOCK)
        for (int64_t p = 0; p < positions; p += COLUMNS) {
            const int64_t excess = larger(0, p + COLUMNS - positions), back = s.copied ? 0 : excess;
            window_product(
                smaller(CHANNEL_BLOCK, CHANNELS - k), a + k * TAPS * ROWS,
                b + k * s.plane + p - back, s.plane, s.offsets, k == 0,
                k + CHANNEL_BLOCK < CHANNELS ? nullptr : bias, c + p - back, stride,
                s.dense ? rows : ROWS, back, s.dense ? COLUMNS - excess + back : COLUMNS);
        }
    if (s.dense) return;
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t y = 0; y < part.h; ++y) {
            const float* __restrict__ from = c + i * padded + y * s.staged.w;
            float* __restrict__ line = to + i * s.out.size() + y * s.out.w;
#pragma omp simd
            for (int64_t w = 0; w < part.w; ++w) line[w] = from[w];
        }
}

// `result` has room for all images.
template <typename Finish>
static void convolve(
        const float* input, const float* weight, const float* bias, float* result, int64_t images,
        Extent in, Extent out, const Finish& finish) {
    const int64_t threads = omp_get_max_threads(), inputs = GROUPS * CHANNELS;
    const int64_t outputs = GROUPS * FILTERS, size = out.size(), wanted = SHARES * threads;
    // Planes can be finished one tile at a time where an image is one block.
    const Shape s = shape_of(in, out, parts(wanted, images * GROUPS * (UNITS == 2 ? TILES : 1)));
    const int64_t blocks = s.count.size();
    const bool at_once = UNITS == 2 && blocks == 1, later = UNITS > 0 && !at_once;
    // Others are finished a few images at a time, so that these stay in cache until then.
    const int64_t least = UNITS == 1 ? threads : 1;
    const int64_t together = later
        ? smaller(images, larger(least, threads * (1 << 17) / (outputs * size))) : images;
    const int64_t shares = smaller(TILES, parts(wanted, together * GROUPS * blocks));
    const int64_t room = parts(s.positions(s.block), COLUMNS) * COLUMNS * ROWS;
    std::unique_ptr<float[]> panels(new float[GROUPS * TILES * ROWS * DEPTH]);
    std::unique_ptr<float[]> block(new float[later ? together * outputs * size : 1]);
#pragma omp parallel
    {
        std::unique_ptr<float[]> scratch(new float[s.dense ? 1 : room]);
        std::unique_ptr<float[]> planes(new float[at_once ? ROWS * size : 1]);
        std::unique_ptr<float[]> staged(new float[s.copied ? CHANNELS * s.plane + SLACK : 1]);
        if (s.copied) std::fill_n(&staged[CHANNELS * s.plane], SLACK, 0.0f);
        int64_t held = -1;  // the block that is staged
#pragma omp for
        for (int64_t at = 0; at < GROUPS * TILES; ++at)
            pack_filters(
                weight + at / TILES * FILTERS * DEPTH, at % TILES, &panels[at * ROWS * DEPTH]);
        for (int64_t done = 0; done < images; done += together) {
            const int64_t count = smaller(together, images - done);
#pragma omp for schedule(dynamic)
            for (int64_t at = 0; at < count * GROUPS * blocks * shares; ++at) {
                const int64_t which = done * GROUPS * blocks + at / shares, share = at % shares;
                const int64_t image = which / (GROUPS * blocks), group = which / blocks % GROUPS;
                const Extent from = s.origin(which % blocks);
                const Extent part = {
                    smaller(s.block.d, out.d - from.d), smaller(s.block.h, out.h - from.h),
                    smaller(s.block.w, out.w - from.w)};
                const float* b = input + (image * inputs + group * CHANNELS) * in.size();
                if (s.copied) {
                    for (int64_t k = 0; held != which && k < CHANNELS; ++k)
                        stage<true>(b + k * in.size(), in, from, s.staged, &staged[k * s.plane]);
                    held = which;
                    b = staged.get();
                } else {
                    b += (from.d * in.h + from.h) * in.w + from.w;
                }
                for (int64_t tile = TILES * share / shares; tile < TILES * (share + 1) / shares;
                     ++tile) {
                    const int64_t filter = tile * ROWS, unit = group * FILTERS + filter;
                    const int64_t rows = smaller(ROWS, FILTERS - filter);
                    const float* a = &panels[(group * TILES + tile) * ROWS * DEPTH];
                    float added[ROWS] = {};
                    if (bias) std::copy_n(bias + unit, rows, added);
                    float* to = at_once ? planes.get()
                        : later ? &block[((image - done) * outputs + unit) * size]
                                : result + (image * outputs + unit) * size;
                    to += (from.d * out.h + from.h) * out.w + from.w;
                    for (int64_t z = 0; z < part.d; ++z)
                        convolve_slice(
                            s, a, b + z * s.staged.h * s.staged.w, added, part, rows,
                            scratch.get(), to + z * out.h * out.w);
                    const int64_t plane = image * outputs + unit;
                    if (at_once) finish(planes.get(), plane, plane + rows);
                }
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
// LINES output rows by WIDE vectors of one plane. Each vector is loaded once and added to all rows
// that it reaches: most lie across two cache lines, so that loads would take longer than sums.
// Everything is unrolled, and which tap that is for each row is known when this is compiled. The
// last vector starts at column `last`. Rows from `whole` on have but `kept` columns of it written;
// what others write too much the next rows overwrite.
template <int64_t LINES, int64_t WIDE>
static __attribute__((noinline)) void direct_block(
        const float* __restrict__ from, Extent s, const float* __restrict__ filter, float bias,
        float* __restrict__ to, int64_t width, int64_t last, int64_t whole, int64_t kept) {
    vector_t sum[LINES][WIDE] = {};
    for (int64_t d = 0; d < KD; ++d, filter += KH * KW)
#pragma GCC unroll 8
        for (int64_t below = 0; below < PHASES_H; ++below)
#pragma GCC unroll 64
            for (int64_t w = 0; w < KW; ++w) {
                // Or GCC reads all taps first and, having no registers for them, stores them as
                // vectors: a 7x7 window took 2.0 ms in place of 0.8.
                const float* taps = filter + w;
                asm volatile("" : "+r"(taps) : : "memory");
#pragma GCC unroll 64
                for (int64_t row = 0; row < (KH - 1) * DH / SH + LINES; ++row) {
                    const int64_t phase =
                        (d * DD % SD * PHASES_H + below) * PHASES_W + w * DW % SW;
                    const float* at = from + phase * s.size()
                        + (d * DD / SD * s.h + row) * s.w + w * DW / SW;
                    vector_t value[WIDE];
#pragma GCC unroll 4
                    for (int64_t j = 0; j < WIDE; ++j)
                        value[j] = *(const vector_t*)(at + (j < WIDE - 1 ? j * VECTOR : last));
#pragma GCC unroll 16
                    for (int64_t i = 0; i < LINES; ++i) {
                        const int64_t h = (row - i) * SH + below;
                        if (h < 0 || h % DH != 0 || h / DH >= KH) continue;
#pragma GCC unroll 4
                        for (int64_t j = 0; j < WIDE; ++j)
                            sum[i][j] += taps[h / DH * KW] * value[j];
                    }
                }
            }
#pragma GCC unroll 16
    for (int64_t i = 0; i < LINES; ++i) {
        // Last, and once: see window_product.
#pragma GCC unroll 4
        for (int64_t j = 0; j < WIDE; ++j) sum[i][j] += bias;
#pragma GCC unroll 4
        for (int64_t j = 0; j < WIDE - 1; ++j)
            *(vector_t*)(to + i * width + j * VECTOR) = sum[i][j];
        if (i < whole) {
            *(vector_t*)(to + i * width + last) = sum[i][WIDE - 1];
        } else {
            // Not from where the sum is, or all sums would lie in memory.
            float end[VECTOR];
            *(vector_t*)end = sum[i][WIDE - 1];
            copy_row(end, kept, to + i * width + last);
        }
    }
}

// One slice in d. The last rows are computed with those before them, some of them a second time,
// and the last columns in a vector that ends with the row.
template <int64_t LINES, int64_t WIDE>
static inline void direct_slice(
        const float* from, Extent s, const float* filter, float bias, float* to, Extent out) {
    // Rows of which a whole vector can be written without leaving the slice.
    const int64_t last_whole = parts(larger(0, out.h * out.w - VECTOR + 1), out.w);
    for (int64_t line = 0; line < out.h; line += LINES) {
        const int64_t h = smaller(line, out.h - LINES);
        const float* at = from + h * s.w;
        float* row = to + h * out.w;
        int64_t w = 0;
        for (; WIDE > 1 && out.w - w > (WIDE - 1) * VECTOR; w += WIDE * VECTOR)
            direct_block<LINES, WIDE>(
                at + w, s, filter, bias, row + w, out.w,
                smaller((WIDE - 1) * VECTOR, out.w - w - VECTOR), LINES, VECTOR);
        for (; w < out.w; w += VECTOR) {
            const int64_t first = larger(0, smaller(w, out.w - VECTOR));
            direct_block<LINES, 1>(
                at + first, s, filter, bias, row + first, out.w, 0, last_whole - h,
                smaller(VECTOR, out.w));
        }
    }
}

static void direct_plane(
        const float* from, Extent s, const float* filter, float bias, float* to, Extent out) {
    for (int64_t d = 0; d < out.d; ++d, from += s.h * s.w, to += out.h * out.w) {
        if (out.h >= 8 && out.w <= VECTOR)
            direct_slice<8, 1>(from, s, filter, bias, to, out);
        else if (out.h >= 4)
            direct_slice<4, 2>(from, s, filter, bias, to, out);
        else
            direct_slice<1, 4>(from, s, filter, bias, to, out);
    }
}

template <typename Finish>
static void convolve(
        const float* input, const float* weight, const float* bias, float* result, int64_t images,
        Extent in, Extent out, const Finish& finish) {
    const Extent s = staged_extent(in, out, out);
    const int64_t plane = PHASES * s.size(), size = out.size(), threads = omp_get_max_threads();
    const int64_t outputs = GROUPS * FILTERS;
    const int64_t together = UNITS == 1
        ? smaller(images, larger(threads, threads * (1 << 17) / (outputs * size))) : images;
    std::unique_ptr<float[]> block(new float[UNITS == 1 ? together * outputs * size : 1]);
#pragma omp parallel
    {
        // Planes lie in it alike, one after the other: what is not theirs stays zero.
        std::unique_ptr<float[]> staged(new float[plane + SLACK]());
        std::unique_ptr<float[]> scratch(new float[UNITS == 2 ? FILTERS * size : 1]);
        for (int64_t done = 0; done < images; done += together) {
            const int64_t count = smaller(together, images - done);
#pragma omp for
            for (int64_t at = 0; at < count * GROUPS; ++at) {
                stage<false>(
                    input + (done * GROUPS + at) * in.size(), in, {0, 0, 0}, s, staged.get());
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
