"""The C++ of a transposed convolution that does not depend on its window.

The order of work: a slab of an image is copied with its border, windows of 32 positions are packed
from it, register tiles multiply them with packed weights, and the phases' results are woven into
rows. Before it stand the tile and the tables that `source` prints.
"""

BODY_CPP = r"""
constexpr int64_t DEPTH = 512;           // sums longer than this are added up in parts
constexpr int64_t SLAB = 64 * 1024;      // floats of a padded slab: a quarter of L2
constexpr int64_t SCRATCH = 128 * 1024;  // floats of results that wait for the epilogue: half of L2
constexpr int64_t COLUMNS = PANELS * TILE_COLUMNS;

struct Shape {
    int64_t in_channels, channels;  // of one group
    int64_t in[3], out[3], steps[3], padded[3];
    int64_t image() const { return in[0] * in[1] * in[2]; }
    int64_t plane() const { return out[0] * out[1] * out[2]; }
    int64_t blocks() const { return (channels + CHANNELS - 1) / CHANNELS; }
};

static Shape shape_of(
        int64_t in_channels, int64_t channels, int64_t outer, int64_t middle, int64_t inner) {
    Shape s = {in_channels / GROUPS, channels / GROUPS, {outer, middle, inner}, {}, {}, {}};
    for (int a = 0; a < 3; ++a) {
        s.out[a] = (s.in[a] - 1) * STRIDE[a] + EDGE[a];
        s.steps[a] = (s.out[a] - BASE[a] + STRIDE[a] - 1) / STRIDE[a];
        s.padded[a] = s.steps[a] + BOX[a] - 1;
    }
    return s;
}

static int64_t tiles_of(const Kind& kind) {
    return (CHANNELS * kind.phases + TILE_ROWS - 1) / TILE_ROWS;
}

// Floats of the packed weights of one block of channels.
static int64_t packed_size(const Shape& s) {
    int64_t size = 0;
    for (const Kind& kind : KIND) size += tiles_of(kind) * kind.shifts * s.in_channels * TILE_ROWS;
    return size;
}

// Tile after tile [shift][in channel][TILE_ROWS]; a tile's rows are (channel, phase of its kind).
static void pack_weights(const float* weight, const Shape& s, int64_t block, float* packed) {
    const int64_t first = block * CHANNELS, count = std::min(CHANNELS, s.channels - first);
    for (const Kind& kind : KIND)
        for (int64_t tile = 0; tile < tiles_of(kind); ++tile) {
            for (int64_t c = 0; c < s.in_channels; ++c) {
                const float* from = weight + (c * s.channels + first) * WINDOW;
                for (int64_t i = 0; i < TILE_ROWS; ++i) {
                    const int64_t row = tile * TILE_ROWS + i, channel = row / kind.phases;
                    const int64_t* tap = kind.tap + row % kind.phases * kind.shifts;
                    for (int64_t k = 0; k < kind.shifts; ++k)
                        packed[(k * s.in_channels + c) * TILE_ROWS + i] =
                            channel < count ? from[channel * WINDOW + tap[k]] : 0.0f;
                }
            }
            packed += kind.shifts * s.in_channels * TILE_ROWS;
        }
}

// A run of neighbouring positions within one row of steps, and its first column in the block.
struct Segment {
    int64_t outer, middle, inner, length, column;
};

// A thread's own memory; stores of whole vectors may reach VECTOR beyond what is meant.
struct Buffers {
    std::vector<float> padded, windows, stage, result;
    std::vector<Segment> segments;
    int64_t channel_stride = 0;

    Buffers(const Shape& s, int64_t slab, int64_t scratch) {
        channel_stride = (slab + BOX[0] - 1) * s.padded[1] * s.padded[2];
        // A multiple of 4 KiB would map every channel onto the same few lines of L1.
        if (channel_stride % 1024 == 0) channel_stride += 16;
        padded.resize(s.in_channels * channel_stride + VECTOR);
        windows.resize(PANELS * SHIFTS * s.in_channels * TILE_COLUMNS + VECTOR);
        stage.resize(CHANNELS * PHASES * COLUMNS);
        result.resize(scratch);
    }
};

// Copies what steps [first, first + rows) of the outermost axis read, with zeros around the image.
static void pad(const float* x, const Shape& s, int64_t first, int64_t rows, Buffers& mine) {
    const int64_t width = s.padded[2];
    const int64_t left = std::min(std::max<int64_t>(-LOWEST[2], 0), width);
    const int64_t right = std::max(std::min(s.in[2] - LOWEST[2], width), left);
    for (int64_t c = 0; c < s.in_channels; ++c) {
        float* to = mine.padded.data() + c * mine.channel_stride;
        for (int64_t o = first; o < first + rows + BOX[0] - 1; ++o)
            for (int64_t m = 0; m < s.padded[1]; ++m, to += width) {
                const int64_t outer = o + LOWEST[0], middle = m + LOWEST[1];
                const bool above = outer < 0 || outer >= s.in[0];
                if (above || middle < 0 || middle >= s.in[1] || right == left) {
                    std::fill(to, to + width, 0.0f);
                    continue;
                }
                const float* from =
                    x + ((c * s.in[0] + outer) * s.in[1] + middle) * s.in[2] + left + LOWEST[2];
                std::fill(to, to + left, 0.0f);
                std::copy(from, from + right - left, to + left);
                std::fill(to + right, to + width, 0.0f);
            }
    }
}

// Positions [from, to) of a slab, cut where a row of steps or a panel ends.
static void cut(const Shape& s, int64_t from, int64_t to, std::vector<Segment>& segments) {
    segments.clear();
    for (int64_t at = from; at < to;) {
        const int64_t inner = at % s.steps[2], row = at / s.steps[2], column = at - from;
        const int64_t length = std::min(
            {s.steps[2] - inner, to - at, TILE_COLUMNS - column % TILE_COLUMNS});
        segments.push_back({row / s.steps[1], row % s.steps[1], inner, length, column});
        at += length;
    }
}

typedef int32_t mask_t __attribute__((vector_size(VECTOR * 4)));

// Panel after panel [shift][in channel][TILE_COLUMNS]; segment by segment, so that the inner loops
// copy a fixed number of vectors. What the last one holds too much leaves its place as it was.
static void pack_windows(const Shape& s, Buffers& mine) {
    for (const Segment& part : mine.segments) {
        const int64_t whole = (part.length - 1) / VECTOR * VECTOR;
        mask_t mask;
        for (int64_t k = 0; k < VECTOR; ++k) mask[k] = whole + k < part.length ? -1 : 0;
        float* to = mine.windows.data() + part.column / TILE_COLUMNS * SHIFTS * s.in_channels
            * TILE_COLUMNS + part.column % TILE_COLUMNS;
        for (const auto& shift : SHIFT) {
            const float* from = mine.padded.data() + part.inner + shift[2]
                + ((part.outer + shift[0]) * s.padded[1] + part.middle + shift[1]) * s.padded[2];
            for (int64_t c = 0; c < s.in_channels; ++c) {
                if (whole) *(vector_t*)to = *(const vector_t*)from;
                const vector_t last = *(const vector_t*)(from + whole);
                vector_t* place = (vector_t*)(to + whole);
                *place = mask ? last : *place;
                to += TILE_COLUMNS;
                from += mine.channel_stride;
            }
        }
    }
}

// tile_product of a tile of which only ROWS rows are used.
template <int64_t ROWS>
static inline void low_tile(
        int64_t depth, const float* __restrict__ a, const float* __restrict__ b,
        float* __restrict__ c, int64_t stride, int64_t rows, bool add) {
    vector_t sum[ROWS][2] = {};
    for (int64_t k = 0; k < depth; ++k) {
        const vector_t b0 = *(const vector_t*)(b + k * TILE_COLUMNS);
        const vector_t b1 = *(const vector_t*)(b + k * TILE_COLUMNS + VECTOR);
#pragma GCC unroll 16
        for (int64_t i = 0; i < ROWS; ++i) {
            const float value = a[k * TILE_ROWS + i];
            sum[i][0] += value * b0;
            sum[i][1] += value * b1;
        }
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < ROWS; ++i) {
        if (i >= rows) continue;
        vector_t* out = (vector_t*)(c + i * stride);
        out[0] = add ? out[0] + sum[i][0] : sum[i][0];
        out[1] = add ? out[1] + sum[i][1] : sum[i][1];
    }
}

// c[rows x TILE_COLUMNS] = or += a * b.
static inline void product(
        int64_t depth, const float* a, const float* b, float* c, int64_t rows, bool add) {
    constexpr int64_t THIRD = (TILE_ROWS + 2) / 3;
    if (rows <= THIRD)
        low_tile<THIRD>(depth, a, b, c, COLUMNS, rows, add);
    else if (rows <= 2 * THIRD)
        low_tile<2 * THIRD>(depth, a, b, c, COLUMNS, rows, add);
    else if (rows < TILE_ROWS)
        low_tile<TILE_ROWS>(depth, a, b, c, COLUMNS, rows, add);
    else
        tile_product(depth, a, b, c, COLUMNS, TILE_ROWS, TILE_COLUMNS, add);
}

// stage[kind][channel][phase][COLUMNS] of one block of channels, for the packed windows.
static void multiply(
        const float* packed, const Shape& s, int64_t channels, int64_t columns, Buffers& mine) {
    float* stage = mine.stage.data();
    for (const Kind& kind : KIND) {
        const int64_t depth = kind.shifts * s.in_channels, rows = channels * kind.phases;
        for (int64_t tile = 0; depth > 0 && tile * TILE_ROWS < rows; ++tile) {
            const float* weights = packed + tile * depth * TILE_ROWS;
            const int64_t height = std::min(rows - tile * TILE_ROWS, TILE_ROWS);
            for (int64_t at = 0; at < columns; at += TILE_COLUMNS) {
                const float* panel = mine.windows.data() + at * SHIFTS * s.in_channels;
                float* to = stage + tile * TILE_ROWS * COLUMNS + at;
                int64_t done = 0;
                for (int64_t r = 0; r < kind.runs; ++r) {
                    const float* b = panel + kind.run[r][0] * s.in_channels * TILE_COLUMNS;
                    for (int64_t left = kind.run[r][1] * s.in_channels; left > 0;) {
                        const int64_t part = std::min(left, DEPTH);
                        product(part, weights + done * TILE_ROWS, b, to, height, done > 0);
                        done += part;
                        left -= part;
                        b += part * TILE_COLUMNS;
                    }
                }
            }
        }
        packed += tiles_of(kind) * depth * TILE_ROWS;
        stage += CHANNELS * kind.phases * COLUMNS;
    }
}

// out[first + STRIDE j + phase] = row[phase][j] + bias, for what lies in [0, size).
static inline void weave(
        const float* const* row, float bias, float* __restrict__ out, int64_t first, int64_t size,
        int64_t length) {
    constexpr int64_t S = STRIDE[2];
    const float* from[S];
    for (int64_t e = 0; e < S; ++e) from[e] = row[e];
    // Only the first and the last step of a row may reach over its ends.
    const auto edge = [&](int64_t j) {
        for (int64_t e = 0; e < S; ++e) {
            const int64_t at = first + j * S + e;
            if (at >= 0 && at < size) out[at] = from[e][j] + bias;
        }
    };
    const int64_t low = first < 0 ? 1 : 0;
    const int64_t high = first + length * S > size ? std::max(length - 1, low) : length;
    for (int64_t j = 0; j < low; ++j) edge(j);
    for (int64_t j = high; j < length; ++j) edge(j);
#pragma omp simd
    for (int64_t j = low; j < high; ++j)
#pragma GCC unroll 16
        for (int64_t e = 0; e < S; ++e) out[first + j * S + e] = from[e][j] + bias;
}

// Writes a block of channels from the stage into their planes; `step` is the slab's first.
static void write_planes(
        const Shape& s, int64_t step, int64_t channels, const float* bias, float* out,
        const Buffers& mine) {
    const float* row_of[PHASES];
    for (int64_t c = 0; c < channels; ++c) {
        const float* stage = mine.stage.data();
        for (const Kind& kind : KIND) {
            for (int64_t p = 0; p < kind.phases; ++p)
                row_of[kind.phase[p]] = stage + (c * kind.phases + p) * COLUMNS;
            stage += CHANNELS * kind.phases * COLUMNS;
        }
        const float added = bias ? bias[c] : 0.0f;
        float* plane = out + c * s.plane();
        for (const Segment& part : mine.segments)
            for (int64_t e = 0; e < STRIDE[0] * STRIDE[1]; ++e) {
                const int64_t o = (step + part.outer) * STRIDE[0] + BASE[0] + e / STRIDE[1];
                const int64_t m = part.middle * STRIDE[1] + BASE[1] + e % STRIDE[1];
                if (o < 0 || o >= s.out[0] || m < 0 || m >= s.out[1]) continue;
                const float* rows[STRIDE[2]];
                for (int64_t i = 0; i < STRIDE[2]; ++i)
                    rows[i] = row_of[e * STRIDE[2] + i] + part.column;
                weave(rows, added, plane + (o * s.out[1] + m) * s.out[2],
                      part.inner * STRIDE[2] + BASE[2], s.out[2], part.length);
            }
    }
}

// How many steps of the outermost axis are padded at a time.
static int64_t slab_of(const Shape& s) {
    const int64_t row = s.in_channels * s.padded[1] * s.padded[2];
    const int64_t fitting = SLAB / std::max<int64_t>(row, 1) - BOX[0] + 1;
    return std::max<int64_t>(std::min(fitting, s.steps[0]), 1);
}

// Blocks [block, end) of a group's channels, for steps [first, last) of the outermost axis; `out`
// is the plane of the first of these channels.
static void convolve(
        const float* x, const float* packed, const float* bias, float* out, const Shape& s,
        int64_t block, int64_t end, int64_t first, int64_t last, Buffers& mine) {
    const int64_t size = packed_size(s), slab = slab_of(s);
    for (int64_t step = first; step < last; step += slab) {
        const int64_t rows = std::min(slab, last - step);
        const int64_t positions = rows * s.steps[1] * s.steps[2];
        pad(x, s, step, rows, mine);
        for (int64_t from = 0; from < positions; from += COLUMNS) {
            const int64_t columns = std::min(COLUMNS, positions - from);
            cut(s, from, from + columns, mine.segments);
            pack_windows(s, mine);
            for (int64_t b = block; b < end; ++b) {
                const int64_t channel = b * CHANNELS;
                const int64_t channels = std::min(CHANNELS, s.channels - channel);
                multiply(packed + b * size, s, channels, columns, mine);
                write_planes(s, step, channels, bias ? bias + channel : nullptr,
                             out + (channel - block * CHANNELS) * s.plane(), mine);
            }
        }
    }
}
"""
