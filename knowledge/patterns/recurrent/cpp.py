"""The C++ text of a recurrent net, with `@NAME@` where code.py puts what is compiled in."""

INCLUDES = """#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <omp.h>
#include <sched.h>
#include <utility>
"""

# `hidden` is the recurrent product, `given` the product with the input, `b` the biases.
CELLS = {
    "lstm": """
        const int64_t f_at = UNITS + u, g_at = 2 * UNITS + u, o_at = 3 * UNITS + u;
        const float i = vector_sigmoid(given[u] + hidden[u] + b[u]);
        const float f = vector_sigmoid(given[f_at] + hidden[f_at] + b[f_at]);
        const float g = vector_tanh(given[g_at] + hidden[g_at] + b[g_at]);
        const float o = vector_sigmoid(given[o_at] + hidden[o_at] + b[o_at]);
        cell[u] = f * cell[u] + i * g;
        next[u] = o * vector_tanh(cell[u]);""",
    "gru": """
        const float r = vector_sigmoid(given[u] + hidden[u] + b[u]);
        const float z = vector_sigmoid(given[UNITS + u] + hidden[UNITS + u] + b[UNITS + u]);
        const float own = hidden[2 * UNITS + u] + b[3 * UNITS + u];
        const float n = vector_tanh(given[2 * UNITS + u] + b[2 * UNITS + u] + r * own);
        next[u] = n + z * (last[u] - n);""",
    "rnn_tanh": """
        next[u] = vector_tanh(given[u] + hidden[u] + b[u]);""",
    "rnn_relu": """
        const float sum = given[u] + hidden[u] + b[u];
        next[u] = sum < 0.0f ? 0.0f : sum;""",
}

BODY = r"""
constexpr int64_t GATES = @GATES@, LAYERS = @LAYERS@, DIRECTIONS = @DIRECTIONS@;
constexpr bool HAS_BIAS = @BIAS@, BATCH_FIRST = @BATCH_FIRST@, IS_LSTM = @LSTM@, IS_GRU = @GRU@;
// A group of units fills whole vectors, one or two for each gate, and is computed in registers.
constexpr int64_t UNITS = GATES == 1 ? 2 * VECTOR : VECTOR, VECTORS = GATES * UNITS / VECTOR;
constexpr int64_t GROUP = GATES * UNITS, BIASES = GROUP + (IS_GRU ? UNITS : 0);
constexpr int64_t ROWS = (2 * TILE_ROWS) / VECTORS;
// Time steps whose input products are computed together hold at least this many rows.
constexpr int64_t CHUNK_ROWS = @CHUNK@;

// What one layer in one direction reads and writes. State is double: one step reads half of it
// while the next half is being written.
struct Layer {
    const float *x, *w_input, *w_hidden, *b_input, *b_hidden, *h0, *c0;
    float *output, *h_last, *c_last;
    int64_t x_time, x_row, output_time, output_row, depth;
    bool reversed;
};

struct Sizes {
    int64_t time, batch, hidden;
};

// Threads that share the state of some rows wait for each other after every time step.
struct alignas(64) Gate {
    std::atomic<int64_t> arrived{0};
    void wait(int64_t members, int64_t& round) {
        if (members == 1) return;
        const int64_t goal = ++round * members;
        arrived.fetch_add(1, std::memory_order_acq_rel);
        for (int64_t spins = 0; arrived.load(std::memory_order_acquire) < goal; ++spins)
            if (spins > 10000) sched_yield();
    }
};

static float* allocate(int64_t count) {
    return static_cast<float*>(std::aligned_alloc(64, (count * 4 + 63) / 64 * 64 + 64));
}

static inline int64_t rounded(int64_t count, int64_t step) {
    return (count + step - 1) / step * step;
}

// Row `unit` of gate `gate` of a weight, or null beyond the last unit.
static inline const float* weight_row(
        const float* w, int64_t gate, int64_t unit, int64_t hidden, int64_t depth) {
    return unit < hidden ? w + (gate * hidden + unit) * depth : nullptr;
}

// A tile of the products with the input. Inlined into its caller it ran short of registers.
__attribute__((noinline)) static void multiply(
        int64_t depth, const float* a, const float* b, float* c, int64_t stride, int64_t rows) {
    tile_product(depth, a, b, c, stride, rows, TILE_COLUMNS, false);
}

// Writes column c of weights to packed[(c / width) * depth * width + k * width + c % width], where
// columns run over gates within a group of units.
static void pack_weight(
        const float* w, float* packed, int64_t width, int64_t first, int64_t groups,
        int64_t hidden, int64_t depth) {
    constexpr int64_t BLOCK = 16;
    const int64_t columns = groups * GROUP, panels = (columns + width - 1) / width;
    for (int64_t panel = 0; panel < panels; ++panel)
        for (int64_t k0 = 0; k0 < depth; k0 += BLOCK) {
            const int64_t count = std::min(BLOCK, depth - k0);
            for (int64_t lane = 0; lane < width; ++lane) {
                const int64_t column = panel * width + lane, inside = column % GROUP;
                const int64_t unit = (first + column / GROUP) * UNITS + inside % UNITS;
                const float* row = column < columns
                    ? weight_row(w, inside / UNITS, unit, hidden, depth) : nullptr;
                float* out = packed + (panel * depth + k0) * width + lane;
                for (int64_t k = 0; k < count; ++k) out[k * width] = row ? row[k0 + k] : 0.0f;
            }
        }
}

static void pack_bias(
        const Layer& layer, float* packed, int64_t first, int64_t groups, int64_t hidden) {
    std::fill(packed, packed + groups * BIASES, 0.0f);
    if (!HAS_BIAS) return;
    for (int64_t group = 0; group < groups; ++group)
        for (int64_t gate = 0; gate < GATES; ++gate)
            for (int64_t u = 0; u < UNITS; ++u) {
                const int64_t unit = (first + group) * UNITS + u;
                if (unit >= hidden) continue;
                float* out = packed + group * BIASES + gate * UNITS + u;
                // The reset gate of a GRU scales the recurrent bias too, so that it stays apart.
                const bool apart = IS_GRU && gate == 2;
                const float own = layer.b_hidden[gate * hidden + unit];
                *out = layer.b_input[gate * hidden + unit] + (apart ? 0.0f : own);
                if (apart) out[UNITS] = own;
            }
}

// The nonlinearities of one row of one group.
static inline void activate(
        const float* __restrict__ given, const float* __restrict__ hidden,
        const float* __restrict__ b, const float* __restrict__ last, float* __restrict__ cell,
        float* __restrict__ next) {
#pragma omp simd
    for (int64_t u = 0; u < UNITS; ++u) {@CELL@
    }
}

// One group of units for R rows: the recurrent product in registers, then the nonlinearities.
template <int64_t R>
static void advance(
        int64_t depth, const float* __restrict__ weights, const float* given, int64_t given_row,
        const float* b, const float* state, int64_t state_row, int64_t unit, float* cell,
        int64_t cell_row, float* next) {
    vector_t sum[R][VECTORS] = {};
    for (int64_t k = 0; k < depth; ++k) {
        const vector_t* w = (const vector_t*)(weights + k * GROUP);
#pragma GCC unroll 16
        for (int64_t r = 0; r < R; ++r) {
            const float value = state[r * state_row + k];
#pragma GCC unroll 4
            for (int64_t v = 0; v < VECTORS; ++v) sum[r][v] += value * w[v];
        }
    }
    alignas(64) float hidden[GROUP];
    for (int64_t r = 0; r < R; ++r) {
        for (int64_t v = 0; v < VECTORS; ++v) *(vector_t*)(hidden + v * VECTOR) = sum[r][v];
        activate(given + r * given_row, hidden, b, state + r * state_row + unit,
                 cell + r * cell_row, next + r * state_row + unit);
    }
}

using Advance = void (*)(int64_t, const float*, const float*, int64_t, const float*, const float*,
                         int64_t, int64_t, float*, int64_t, float*);
template <int64_t... R>
static Advance pick(int64_t rows, std::integer_sequence<int64_t, R...>) {
    static constexpr Advance table[] = {advance<R + 1>...};
    return table[rows - 1];
}

// One thread's share of a layer: some rows of the batch, some groups of units.
struct Share {
    const Layer& layer;
    const Sizes& sizes;
    int64_t first_row, rows, first_group, groups, state_row;
    float *state[2], *packed_input, *packed_hidden, *bias, *given, *cell, *panel, *memory;
    int64_t given_row, chunk;

    Share(const Layer& l, const Sizes& s, int64_t row0, int64_t row1, int64_t group0,
          int64_t group1, float* shared)
        : layer(l), sizes(s), first_row(row0), rows(row1 - row0), first_group(group0),
          groups(group1 - group0), state_row(rounded(s.hidden, UNITS)) {
        state[0] = shared;
        state[1] = shared + rows * state_row;
        given_row = rounded(groups * GROUP, TILE_COLUMNS);
        chunk = std::min(s.time, std::max<int64_t>(1, CHUNK_ROWS / std::max<int64_t>(1, rows)));
        const int64_t tall = rounded(chunk * rows, TILE_ROWS);
        const int64_t parts[] = {
            given_row * l.depth, groups * GROUP * s.hidden, groups * BIASES,
            chunk * rows * given_row, rows * groups * UNITS, tall * l.depth};
        float** places[] = {&packed_input, &packed_hidden, &bias, &given, &cell, &panel};
        int64_t total = 0;
        for (int64_t part : parts) total += rounded(part, 16);
        float* next = memory = allocate(total);
        for (int64_t i = 0; i < 6; ++i) {
            *places[i] = next;
            next += rounded(parts[i], 16);
        }
    }
    ~Share() { std::free(memory); }
    Share(const Share&) = delete;

    void prepare() {
        pack_weight(layer.w_input, packed_input, TILE_COLUMNS, first_group, groups, sizes.hidden,
                    layer.depth);
        pack_weight(layer.w_hidden, packed_hidden, GROUP, first_group, groups, sizes.hidden,
                    sizes.hidden);
        pack_bias(layer, bias, first_group, groups, sizes.hidden);
        const int64_t first = first_group * UNITS, wide = groups * UNITS;
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t u = 0; u < wide; ++u) {
                const int64_t from = (first_row + row) * sizes.hidden + first + u;
                const bool inside = first + u < sizes.hidden;
                state[0][row * state_row + first + u] = layer.h0 && inside ? layer.h0[from] : 0.0f;
                if (IS_LSTM) cell[row * wide + u] = layer.c0 && inside ? layer.c0[from] : 0.0f;
            }
    }

    int64_t moment(int64_t step) const { return layer.reversed ? sizes.time - 1 - step : step; }

    // given[step][row][column] = x * w_input for steps [begin, end): one tall product.
    void multiply_inputs(int64_t begin, int64_t end) {
        const int64_t depth = layer.depth, all = (end - begin) * rows;
        for (int64_t top = 0; top < all; top += TILE_ROWS)
            for (int64_t i = 0; i < TILE_ROWS; ++i) {
                float* out = panel + top * depth + i;
                const int64_t step = begin + (top + i) / rows, row = first_row + (top + i) % rows;
                const float* x = layer.x + moment(step) * layer.x_time + row * layer.x_row;
                for (int64_t k = 0; k < depth; ++k)
                    out[k * TILE_ROWS] = top + i < all ? x[k] : 0.0f;
            }
        for (int64_t column = 0; column < given_row; column += TILE_COLUMNS)
            for (int64_t top = 0; top < all; top += TILE_ROWS)
                multiply(depth, panel + top * depth, packed_input + column * depth,
                         given + top * given_row + column, given_row,
                         std::min(TILE_ROWS, all - top));
    }

    void advance_step(int64_t step, const float* products) {
        const float* from = state[step % 2];
        float* to = state[(step + 1) % 2];
        const int64_t wide = groups * UNITS;
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t unit = (first_group + group) * UNITS;
            int64_t blocks = (rows + ROWS - 1) / ROWS;
            for (int64_t row = 0; row < rows; --blocks) {
                const int64_t count = (rows - row + blocks - 1) / blocks;
                pick(count, std::make_integer_sequence<int64_t, ROWS>())(
                    sizes.hidden, packed_hidden + group * GROUP * sizes.hidden,
                    products + row * given_row + group * GROUP, given_row, bias + group * BIASES,
                    from + row * state_row, state_row, unit,
                    cell + row * wide + group * UNITS, wide, to + row * state_row);
                row += count;
            }
        }
        if (layer.output) store(to, layer.output + moment(step) * layer.output_time,
                                layer.output_row);
        if (step + 1 == sizes.time && layer.h_last) store(to, layer.h_last, sizes.hidden);
    }

    void store(const float* values, float* out, int64_t out_row) const {
        const int64_t first = first_group * UNITS;
        const int64_t count = std::min(groups * UNITS, sizes.hidden - first);
        for (int64_t row = 0; row < rows; ++row)
            std::memcpy(out + (first_row + row) * out_row + first,
                        values + row * state_row + first, count * sizeof(float));
    }

    void run(Gate& gate, int64_t members, int64_t& round) {
        prepare();
        gate.wait(members, round);
        for (int64_t begin = 0; begin < sizes.time; begin += chunk) {
            const int64_t end = std::min(sizes.time, begin + chunk);
            multiply_inputs(begin, end);
            for (int64_t step = begin; step < end; ++step) {
                advance_step(step, given + (step - begin) * rows * given_row);
                gate.wait(members, round);
            }
        }
        if (!IS_LSTM || !layer.c_last) return;
        const int64_t first = first_group * UNITS, wide = groups * UNITS;
        for (int64_t row = 0; row < rows; ++row)
            std::memcpy(layer.c_last + (first_row + row) * sizes.hidden + first, cell + row * wide,
                        std::min(wide, sizes.hidden - first) * sizeof(float));
    }
};

// Threads form teams. Each team takes some rows of the batch in one direction; its members split
// the units. Splitting rows needs no waiting, but every team then streams all the weights.
static int64_t row_parts(const Sizes& sizes, int64_t threads) {
    return std::max<int64_t>(1, std::min(threads, @ROW_PARTS@));
}

static void run_layer(const Layer* layers, const Sizes& sizes) {
    const int64_t threads = omp_get_max_threads();
    const int64_t parts = row_parts(sizes, std::max<int64_t>(1, threads / DIRECTIONS));
    const int64_t tasks = DIRECTIONS * parts, teams = std::min(tasks, threads);
    const int64_t groups = (sizes.hidden + UNITS - 1) / UNITS;
    const int64_t wanted = std::min(groups, threads / teams);
    const int64_t part_rows = (sizes.batch + parts - 1) / parts;
    const int64_t shared = rounded(2 * part_rows * rounded(sizes.hidden, UNITS), 16);
    std::unique_ptr<float, decltype(&std::free)> states(allocate(tasks * shared), &std::free);
    std::unique_ptr<Gate[]> gates(new Gate[threads]);
#pragma omp parallel num_threads(teams * wanted)
    {
        // Given fewer threads than asked for, none may wait for one that never comes.
        const int64_t present = omp_get_num_threads(), me = omp_get_thread_num();
        const int64_t members = present < teams * wanted ? 1 : wanted;
        const int64_t step = members == 1 ? std::min(present, teams) : teams;
        const int64_t member = me % members;
        int64_t round = 0;
        for (int64_t task = me / members; task < tasks; task += step) {
            const int64_t row0 = task / DIRECTIONS * part_rows;
            const int64_t row1 = std::min(sizes.batch, row0 + part_rows);
            if (row0 >= row1) continue;
            Share share(layers[task % DIRECTIONS], sizes, row0, row1, groups * member / members,
                        groups * (member + 1) / members, states.get() + task * shared);
            share.run(gates[me / members], members, round);
        }
    }
}
"""

ENTRY = r"""
extern "C" void @NAME@(
        const float* x, @PARAMETERS@
        int64_t time, int64_t batch, int64_t depth, int64_t hidden) {
    const Sizes sizes = {time, batch, hidden};
    const float* const weights[] = {@WEIGHTS@};
    constexpr int64_t EACH = HAS_BIAS ? 4 : 2;
    const int64_t wide = DIRECTIONS * hidden, states = batch * hidden;
    // What one layer hands to the next lies time first, whatever the order outside.
    std::unique_ptr<float[]> between[2];
    for (int64_t i = 0; i < std::min<int64_t>(2, LAYERS - 1); ++i)
        between[i].reset(new float[time * batch * wide]);
    for (int64_t index = 0; index < LAYERS; ++index) {
        const bool first = index == 0, last = index == LAYERS - 1;
        Layer layers[DIRECTIONS];
        for (int64_t direction = 0; direction < DIRECTIONS; ++direction) {
            const int64_t place = index * DIRECTIONS + direction;
            const float* const* w = weights + place * EACH;
            Layer& one = layers[direction];
            one.w_input = w[0];
            one.w_hidden = w[1];
            one.b_input = HAS_BIAS ? w[EACH - 2] : nullptr;
            one.b_hidden = HAS_BIAS ? w[EACH - 1] : nullptr;
            one.h0 = h0 ? h0 + place * states : nullptr;
            one.c0 = c0 ? c0 + place * states : nullptr;
            one.h_last = h_last ? h_last + place * states : nullptr;
            one.c_last = c_last ? c_last + place * states : nullptr;
            one.reversed = direction == 1;
            one.depth = first ? depth : wide;
            one.x = first ? x : between[(index - 1) % 2].get();
            one.x_time = first && BATCH_FIRST ? depth : batch * one.depth;
            one.x_row = first && BATCH_FIRST ? time * depth : one.depth;
            float* const out = last ? output : between[index % 2].get();
            one.output = out ? out + direction * hidden : nullptr;
            one.output_time = last && BATCH_FIRST ? wide : batch * wide;
            one.output_row = last && BATCH_FIRST ? time * wide : wide;
        }
        run_layer(layers, sizes);
    }
}
"""
