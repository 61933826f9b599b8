"""The C++ text of attention, with `@NAME@` where code.py puts what is compiled in."""

INCLUDES = """#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>
#include <omp.h>
"""

BODY = r"""
// A block of queries fills two vectors; a step takes KEYS keys.
constexpr int64_t QUERIES = TILE_COLUMNS, KEYS = @KEY_TILES@ * TILE_ROWS;
// Packed keys and values of the heads that are worked on together stay within the last cache.
constexpr int64_t PACKED_BYTES = 8 << 20;

// A batch is one of `windows` within an outer one, a head one of the `groups` that share keys.
struct Strides {
    int64_t batch, window, head, group, row, column;
};

struct Problem {
    const element *q, *k, *v;
@MEMBERS@    element* out;
    int64_t batches, windows, kv_heads, groups, queries, keys, depth, width;
    Strides at_q, at_k, at_v, at_out@PLACES@;
    float scale;
    int64_t steps() const { return (keys + KEYS - 1) / KEYS; }
    int64_t wide() const { return (width + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS; }
};

static int64_t place(const Problem& p, const Strides& at, int64_t batch, int64_t head) {
    return batch / p.windows * at.batch + batch % p.windows * at.window
        + head / p.groups * at.head + head % p.groups * at.group;
}

static float* allocate(int64_t count) {
    return static_cast<float*>(std::aligned_alloc(64, (count * 4 + 127) / 64 * 64));
}

// The largest magnitude; not a number if any is not finite.
static float magnitude(const float* values, int64_t count) {
    float largest = 0.0f, lost = 0.0f;
#pragma omp simd reduction(max : largest) reduction(+ : lost)
    for (int64_t i = 0; i < count; ++i) {
        const float size = std::fabs(values[i]);
        largest = size > largest ? size : largest;
        lost += values[i] - values[i];
    }
    return largest + lost;
}

// out[j * wide + i] = scale * from[i * row + j * column] for i < rows, 0 up to `wide`; j < columns.
static void pack(
        const element* from, int64_t row, int64_t column, int64_t rows, int64_t columns,
        int64_t wide, float scale, float* out) {
    constexpr int64_t BLOCK = 16;
    int64_t done = 0;
    if (row == 1) {
        for (int64_t j = 0; j < columns; ++j) {
            for (int64_t i = 0; i < rows; ++i)
                out[j * wide + i] = scale * value_of(from + i + j * column);
            for (int64_t i = rows; i < wide; ++i) out[j * wide + i] = 0.0f;
        }
        return;
    }
#if !defined(__clang__)
    // What a square writes past the panel's width, the next column overwrites.
    if (column == 1)
        for (; done + VECTOR <= columns; done += VECTOR)
            for (int64_t first = 0; first < wide; first += VECTOR) {
                vector_t square[VECTOR];
                for (int64_t i = 0; i < VECTOR; ++i)
                    square[i] = first + i < rows
                        ? vector_of(from + (first + i) * row + done) : vector_t{};
                transpose(square);
                for (int64_t i = 0; i < VECTOR; ++i) {
                    float* to = out + (done + i) * wide + first;
                    if (done + i + 1 < columns || first + VECTOR <= wide)
                        *(vector_t*)to = scale * square[i];
                    else
                        for (int64_t k = 0; first + k < wide; ++k) to[k] = scale * square[i][k];
                }
            }
#endif
    for (int64_t j0 = done; j0 < columns; j0 += BLOCK) {
        const int64_t j1 = std::min(columns, j0 + BLOCK);
        for (int64_t i = 0; i < wide; ++i)
            for (int64_t j = j0; j < j1; ++j)
                out[j * wide + i] =
                    i < rows ? scale * value_of(from + i * row + j * column) : 0.0f;
    }
}

// One step's keys of one head: keys as panels [depth][TILE_ROWS], values as [keys][TILE_ROWS].
struct Packed {
    float *keys, *values;
    float key_size, value_size;
};

static void pack_step(const Problem& p, int64_t batch, int64_t head, int64_t tile, Packed& to) {
    const int64_t first = tile * KEYS, count = std::min(KEYS, p.keys - first);
    head *= p.groups;
    const element* k = p.k + place(p, p.at_k, batch, head) + first * p.at_k.row;
    const element* v = p.v + place(p, p.at_v, batch, head) + first * p.at_v.row;
    for (int64_t key = 0; key < count; key += TILE_ROWS)
        pack(k + key * p.at_k.row, p.at_k.row, p.at_k.column, std::min(TILE_ROWS, count - key),
             p.depth, TILE_ROWS, 1.0f, to.keys + key * p.depth);
    for (int64_t d = 0; d < p.width; d += TILE_ROWS)
        pack(v + d * p.at_v.column, p.at_v.column, p.at_v.row, std::min(TILE_ROWS, p.width - d),
             count, TILE_ROWS, 1.0f, to.values + d * count);
    const int64_t padded = (count + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    to.key_size = magnitude(to.keys, padded * p.depth);
    to.value_size = magnitude(to.values, p.wide() * count);
}

// What a thread keeps of its block of queries: scores and results so far, both transposed.
struct Scratch {
    float *q, *scores, *values;
    alignas(64) float largest[QUERIES], sum[QUERIES];
    float q_size;
};

// A whole tile, transposed scores or values. Inlined into its callers it ran short of registers.
__attribute__((noinline)) static void multiply(
        int64_t depth, const float* a, const float* b, float* c, bool add) {
    tile_product(depth, a, b, c, QUERIES, TILE_ROWS, QUERIES, add);
}

// How much of a step's scores the mask hides.
enum class Hidden { nothing, some, all };
static void cap_scores(int64_t count, float* scores) {
@CAP@}
@MASKING@
// Turns scores into exponentials, and what was summed before into the same measure.
static void take_exponentials(const Problem& p, int64_t count, bool started, Scratch& s) {
    alignas(64) float base[QUERIES], decay[QUERIES], sum[QUERIES];
    vector_t top[2] = {*(vector_t*)s.largest, *(vector_t*)(s.largest + VECTOR)};
    for (int64_t key = 0; key < count; ++key)
#pragma GCC unroll 2
        for (int64_t i = 0; i < 2; ++i) {
            const vector_t score = *(const vector_t*)(s.scores + key * QUERIES + i * VECTOR);
            top[i] = score > top[i] ? score : top[i];
        }
    *(vector_t*)sum = top[0];
    *(vector_t*)(sum + VECTOR) = top[1];
#pragma omp simd
    for (int64_t i = 0; i < QUERIES; ++i) {
        // Where all so far is minus infinity, the difference to it would not be a number.
        base[i] = sum[i] == -INFINITY ? 0.0f : sum[i];
        decay[i] = vector_exp(s.largest[i] - base[i]);
        s.largest[i] = sum[i];
    }
    for (int64_t key = 0; key < count; ++key)
#pragma omp simd
        for (int64_t i = 0; i < QUERIES; ++i)
            s.scores[key * QUERIES + i] = vector_exp(s.scores[key * QUERIES + i] - base[i]);
    vector_t sums[2] = {};
    for (int64_t key = 0; key < count; ++key)
#pragma GCC unroll 2
        for (int64_t i = 0; i < 2; ++i)
            sums[i] += *(const vector_t*)(s.scores + key * QUERIES + i * VECTOR);
    *(vector_t*)sum = sums[0];
    *(vector_t*)(sum + VECTOR) = sums[1];
#pragma omp simd
    for (int64_t i = 0; i < QUERIES; ++i) s.sum[i] = s.sum[i] * decay[i] + sum[i];
    if (!started) return;
    for (int64_t d = 0; d < p.wide(); ++d)
#pragma omp simd
        for (int64_t i = 0; i < QUERIES; ++i) s.values[d * QUERIES + i] *= decay[i];
}

static void write_out(const Problem& p, element* out, int64_t rows, const Scratch& s) {
    for (int64_t i = 0; i < rows; ++i) {
        const float share = EMPTY_IS_ZERO && s.sum[i] == 0.0f ? 0.0f : 1.0f / s.sum[i];
        for (int64_t d = 0; d < p.width; ++d)
            out[i * p.at_out.row + d * p.at_out.column] =
                rounded(s.values[d * QUERIES + i] * share);
    }
}

// One block of queries of one head, step by step over the keys it sees.
static void attend(
        const Problem& p, int64_t batch, int64_t head, int64_t first, const Packed* packed,
        Scratch& s) {
    const int64_t rows = std::min(QUERIES, p.queries - first);
    pack(p.q + place(p, p.at_q, batch, head) + first * p.at_q.row, p.at_q.row,
         p.at_q.column, rows, p.depth, QUERIES, p.scale, s.q);
    s.q_size = magnitude(s.q, p.depth * QUERIES);
    std::fill(s.largest, s.largest + QUERIES, -INFINITY);
    std::fill(s.sum, s.sum + QUERIES, 0.0f);
@SINK@    const int64_t limit = keys_seen(p, first, rows, packed, s);
    bool started = false;
    for (int64_t step = 0; step * KEYS < limit; ++step) {
        const int64_t key = step * KEYS, whole = std::min(KEYS, p.keys - key);
        const int64_t count = std::min(KEYS, limit - key);
        const Hidden hidden = look(p, batch, head, first, rows, key, count, packed[step], s);
        if (hidden == Hidden::all) continue;
        for (int64_t i = 0; i < count; i += TILE_ROWS)
            multiply(p.depth, packed[step].keys + i * p.depth, s.q, s.scores + i * QUERIES, false);
        cap_scores(count, s.scores);
        if (hidden != Hidden::nothing) hide(p, batch, head, first, rows, key, count, s.scores);
        take_exponentials(p, count, started, s);
        for (int64_t d = 0; d < p.wide(); d += TILE_ROWS)
            multiply(count, packed[step].values + d * whole, s.scores, s.values + d * QUERIES,
                     started);
        started = true;
    }
    if (!started) std::fill(s.values, s.values + p.wide() * QUERIES, 0.0f);
    write_out(p, p.out + place(p, p.at_out, batch, head) + first * p.at_out.row, rows, s);
}

static void run(const Problem& p) {
    const int64_t steps = p.steps(), all = p.batches * p.kv_heads, shared = p.groups;
    const int64_t each = steps * KEYS * (p.depth + p.wide());
    const int64_t fitting = PACKED_BYTES / std::max<int64_t>(1, 4 * each);
    const int64_t group = std::max<int64_t>(
        1, std::min(all, std::max<int64_t>(omp_get_max_threads(), fitting)));
    const int64_t blocks = (p.queries + QUERIES - 1) / QUERIES;
    std::unique_ptr<float, decltype(&std::free)> memory(allocate(group * each), &std::free);
    std::unique_ptr<Packed[]> packed(new Packed[group * steps]);
#pragma omp parallel
    {
        const int64_t wanted = QUERIES * (p.depth + KEYS + p.wide());
        std::unique_ptr<float, decltype(&std::free)> own(allocate(wanted), &std::free);
        Scratch s;
        s.q = own.get();
        s.scores = s.q + QUERIES * p.depth;
        s.values = s.scores + QUERIES * KEYS;
        for (int64_t start = 0; start < all; start += group) {
            const int64_t count = std::min(group, all - start);
#pragma omp for schedule(dynamic)
            for (int64_t task = 0; task < count * steps; ++task) {
                const int64_t head = start + task / steps;
                Packed& to = packed[task];
                to.keys = memory.get() + task * KEYS * (p.depth + p.wide());
                to.values = to.keys + KEYS * p.depth;
                pack_step(p, head / p.kv_heads, head % p.kv_heads, task % steps, to);
            }
            // Later queries see more keys where keys are hidden, so that they go first.
#pragma omp for schedule(dynamic)
            for (int64_t task = 0; task < count * shared * blocks; ++task) {
                const int64_t place = task / (shared * blocks), kv_head = start + place;
                const int64_t head = kv_head % p.kv_heads * shared + task / blocks % shared;
                attend(p, kv_head / p.kv_heads, head, (blocks - 1 - task % blocks) * QUERIES,
                       packed.get() + place * steps, s);
            }
        }
    }
}

extern "C" void @NAME@(
        const element* q, const element* k, const element* v, @PARAMETERS@element* out,
        int64_t batches, int64_t windows, int64_t kv_heads, int64_t groups, int64_t queries,
        int64_t keys, int64_t depth, int64_t width, @STRIDES@) {
    Problem p = {};
    p.q = q, p.k = k, p.v = v, p.out = out;
    p.batches = batches, p.windows = windows, p.kv_heads = kv_heads, p.groups = groups;
    p.queries = queries, p.keys = keys, p.depth = depth, p.width = width;
    p.scale = @SCALE@;
@GIVEN@    run(p);
}
"""

# Each defines keys_seen, look (all: the step adds nothing) and hide.
NO_MASK = r"""
static int64_t keys_seen(const Problem& p, int64_t, int64_t, const Packed*, const Scratch&) {
    return p.keys;
}
static Hidden look(
        const Problem&, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, const Packed&,
        const Scratch&) {
    return Hidden::nothing;
}
static void hide(
        const Problem&, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, float*) {}
"""

CAUSAL = r"""
// Torch's own kernel takes equal depths; the other way adds minus infinity instead of setting it.
static bool sets(const Problem& p) { return p.depth == p.width; }

// Keys after the last query count for nothing, unless a weight of zero meets an infinite value:
// then the result is not a number as far as torch's own kernel multiplies, in blocks of 512 keys.
static int64_t keys_seen(
        const Problem& p, int64_t first, int64_t rows, const Packed* packed, const Scratch& s) {
    const int64_t least = std::min(p.keys, first + rows);
    bool finite = true;
    for (int64_t step = 0; step < p.steps(); ++step) {
        finite = finite && std::isfinite(packed[step].value_size);
        finite = finite && (sets(p) || packed[step].key_size * s.q_size * p.depth < 1e38f);
    }
    if (finite) return least;
    if (!sets(p)) return p.keys;
    const int64_t block = p.queries >= 768 ? 256 : p.queries >= 192 ? 64 : 32;
    const int64_t seen = std::min(p.keys, (first / block + 1) * block);
    return std::min(p.keys, (seen + 511) / 512 * 512);
}
static Hidden look(
        const Problem&, int64_t, int64_t, int64_t first, int64_t, int64_t key, int64_t count,
        const Packed&, const Scratch&) {
    return key + count - 1 > first ? Hidden::some : Hidden::nothing;
}
static void hide(
        const Problem& p, int64_t, int64_t, int64_t first, int64_t, int64_t key, int64_t count,
        float* scores) {
    for (int64_t j = std::max<int64_t>(0, first + 1 - key); j < count; ++j)
        for (int64_t i = 0; i < std::min(QUERIES, key + j - first); ++i)
            scores[j * QUERIES + i] = sets(p) ? -INFINITY : scores[j * QUERIES + i] - INFINITY;
}
"""

# For each mask.
TENSOR = r"""
static const @MASK_TYPE@* mask_at@NUMBER@(
        const Problem& p, int64_t batch, int64_t head, int64_t first, int64_t key) {
    const Strides& at = p.at_mask@NUMBER@;
    return p.mask@NUMBER@ + place(p, at, batch, head) + first * at.row + key * at.column;
}
static Hidden look@NUMBER@(
        const Problem& p, int64_t batch, int64_t head, int64_t first, int64_t rows, int64_t key,
        int64_t count) {
    const @MASK_TYPE@* mask = mask_at@NUMBER@(p, batch, head, first, key);
    int64_t none = 0, full = 0;
    if (p.at_mask@NUMBER@.column != 1) return Hidden::some;
    // A row that all queries share is looked at once.
    if (p.at_mask@NUMBER@.row == 0) rows = 1;
    for (int64_t i = 0; i < rows; ++i) {
        int none_here = 0, full_here = 0;
        const @MASK_TYPE@* row = mask + i * p.at_mask@NUMBER@.row;
#pragma omp simd reduction(+ : none_here, full_here)
        for (int64_t j = 0; j < count; ++j) {
            none_here += @HIDES_NOTHING@;
            full_here += @HIDES_ALL@;
        }
        none += none_here, full += full_here;
        if (none != (i + 1) * count && full != (i + 1) * count) return Hidden::some;
    }
    return none == rows * count ? Hidden::nothing : Hidden::all;
}

// Neighbours of one row as numbers.
__attribute__((unused)) static vector_t numbers@NUMBER@(const @MASK_TYPE@* row) {
    vector_t found;
    for (int64_t j = 0; j < VECTOR; ++j) found[j] = @NUMBER_OF@;
    return found;
}

// Whether what is added to minus infinity leaves it there.
__attribute__((unused)) static bool stays_below@NUMBER@(
        const Problem& p, int64_t batch, int64_t head, int64_t first, int64_t rows, int64_t key,
        int64_t count) {
    const @MASK_TYPE@* row = mask_at@NUMBER@(p, batch, head, first, key);
    const Strides& at = p.at_mask@NUMBER@;
    for (int64_t i = 0; i < rows; ++i, row += at.row)
        for (int64_t k = 0, j = 0; k < count; ++k, j += at.column)
            if (!(@BELOW@)) return false;
    return true;
}
"""

MASKED = r"""
static int64_t keys_seen(const Problem& p, int64_t, int64_t, const Packed*, const Scratch&) {
    return p.keys;
}
static Hidden look(
        const Problem& p, int64_t batch, int64_t head, int64_t first, int64_t rows, int64_t key,
        int64_t count, const Packed& step, const Scratch& s) {
@LOOKS@    return @SOME@ ? Hidden::some : Hidden::nothing;
}
static void hide(
        const Problem& p, int64_t batch, int64_t head, int64_t first, int64_t rows, int64_t key,
        int64_t count, float* scores) {
@PLACES@    if (@SAME@) {
        // All queries see the same: along the keys, vectors of queries.
        for (int64_t j = 0; j < count; ++j)
#pragma omp simd
            for (int64_t i = 0; i < rows; ++i) {
                float& score = scores[j * QUERIES + i];
@APPLY@            }
        return;
    }
    int64_t done = 0;
#if !defined(__clang__)
    // Squares of a mask are transposed, as the scores are.
    if (@NEIGHBOURS@)
        for (; done + VECTOR <= count; done += VECTOR)
            for (int64_t first_row = 0; first_row < rows; first_row += VECTOR) {
                const int64_t held = std::min(VECTOR, rows - first_row);
                alignas(64) vector_t seen[@COUNT@][VECTOR];
@SEEN@                for (int64_t k = 0; k < VECTOR; ++k)
#pragma omp simd
                    for (int64_t i = 0; i < held; ++i) {
                        float& score = scores[(done + k) * QUERIES + first_row + i];
@APPLY_SEEN@                    }
            }
#endif
    for (int64_t j0 = done; j0 < count; j0 += 16)
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = j0; j < std::min(count, j0 + 16); ++j) {
                float& score = scores[j * QUERIES + i];
@APPLY@            }
}
"""
