"""Pooling in channels-last memory: vectors along channels, windows read as they lie."""

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.pooling.windows import Pool, output_size
from knowledge.program import Check, Kernel, Size, Written, variable

_CPP = r"""
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

// As wide as the machine's vectors: wider ones are compared element by element (30 ms for 1.4).
#if defined(__AVX512F__)
constexpr int64_t LANES = 16, BLOCK = 64;
#else
constexpr int64_t LANES = 8, BLOCK = 64;
#endif
typedef float lanes __attribute__((vector_size(LANES * 4)));
typedef double wide __attribute__((vector_size(LANES * 4)));
typedef float half __attribute__((vector_size(LANES * 2)));

// Vectors lie anywhere; a type that says so is forgotten by templates.
template <typename T>
static inline T loaded(const float* place) {{
    T value;
    std::memcpy(&value, place, sizeof(T));
    return value;
}}
template <typename T>
static inline void store(float* place, T value) {{ std::memcpy(place, &value, sizeof(T)); }}
struct Span {{ int64_t first, last; }};

{window}
{join}
extern "C" void {name}(
        const float* __restrict__ x, float* __restrict__ out, int64_t images, int64_t height,
        int64_t width, int64_t channels, int64_t out_height, int64_t out_width) {{
    const int64_t blocks = (channels + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) if (images * height * width * channels > 16384)
    for (int64_t task = 0; task < images * out_height * blocks; ++task) {{
        const int64_t block = task % blocks, oh = task / blocks % out_height;
        const int64_t image = task / blocks / out_height;
        const int64_t c0 = block * BLOCK, c1 = c0 + BLOCK < channels ? c0 + BLOCK : channels;
        const float* plane = x + image * height * width * channels;
        const Span rows = {rows};
        for (int64_t ow = 0; ow < out_width; ++ow) {{
            const Span columns = {columns};
            float* to = out + ((image * out_height + oh) * out_width + ow) * channels;
{divisor}
            int64_t c = c0;
            for (; c + LANES <= c1; c += LANES)
                store<lanes>(
                    to + c, joined<lanes>(plane + c, rows, columns, width, channels){over});
            for (; c < c1; ++c)
                to[c] = joined<float>(plane + c, rows, columns, width, channels){over};
        }}
    }}
}}
"""

_ADAPTIVE_SPAN = (
    "Span{{{o} * {size} / {outputs}, (({o} + 1) * {size} + {outputs} - 1) / {outputs}}}"
)
_WINDOW = """// The part of a window that lies in the image; DILATION apart.
template <int64_t WINDOW, int64_t STRIDE, int64_t PADDING, int64_t DILATION>
static inline Span inside(int64_t o, int64_t size) {{
    int64_t first = o * STRIDE - PADDING;
    int64_t last = first + (WINDOW - 1) * DILATION + 1;
    if (first < 0) first += (-first + DILATION - 1) / DILATION * DILATION;
    if (last > size) last = size;
    return {{first, last}};
}}
constexpr int64_t STEP_H = {step_h}, STEP_W = {step_w};"""

_LARGEST = r"""
// NaN wins, as in torch.
template <typename T>
static inline T joined(
        const float* plane, Span rows, Span columns, int64_t width, int64_t channels) {
    T most = T{} - std::numeric_limits<float>::infinity();
    for (int64_t h = rows.first; h < rows.last; h += STEP_H)
        for (int64_t w = columns.first; w < columns.last; w += STEP_W) {
            const T value = loaded<T>(plane + (h * width + w) * channels);
            most = (value > most) | (value != value) ? value : most;
        }
    return most;
}
"""

_SUM = r"""
// A window's rows are summed in float and joined in double: it may be a whole image.
template <typename T> struct Total {
    double sum = 0;
    void add(float row) { sum += row; }
    float all() const { return static_cast<float>(sum); }
};
template <> struct Total<lanes> {
    wide low = {}, high = {};
    void add(lanes row) {
        half parts[2];
        std::memcpy(parts, &row, sizeof(row));
        low += __builtin_convertvector(parts[0], wide);
        high += __builtin_convertvector(parts[1], wide);
    }
    lanes all() const {
        const half parts[2] = {
            __builtin_convertvector(low, half), __builtin_convertvector(high, half)};
        lanes sum;
        std::memcpy(&sum, parts, sizeof(sum));
        return sum;
    }
};

template <typename T>
static inline T joined(
        const float* plane, Span rows, Span columns, int64_t width, int64_t channels) {
    if (rows.last - rows.first <= 4) {
        T sum = {};
        for (int64_t h = rows.first; h < rows.last; ++h)
            for (int64_t w = columns.first; w < columns.last; ++w)
                sum += loaded<T>(plane + (h * width + w) * channels);
        return sum;
    }
    Total<T> total;
    for (int64_t h = rows.first; h < rows.last; ++h) {
        T row = {};
        for (int64_t w = columns.first; w < columns.last; ++w)
            row += loaded<T>(plane + (h * width + w) * channels);
        total.add(row);
    }
    return total.all();
}
"""


def pool_kernel(graph: OpGraph, node: Node, name: str, pool: Pool) -> Kernel:
    """The kernel of a pooling whose input and result are of shape (N, H, W, C)."""
    (source,) = node.refs
    spec, x = graph.spec_of(source), variable(source)
    height, width = f"{x}.shape[1]", f"{x}.shape[2]"
    made = node.spec.shape
    if pool.adaptive:
        out = (str(made[1]), str(made[2]))
    else:
        out = (output_size(pool, 1, height), output_size(pool, 2, width))
    elements = node.spec.numel * pool.window[1] * pool.window[2]
    return Kernel(
        name=name,
        source=_source(pool, name),
        signature="pp" + "i" * 6,
        nodes=(node.name,),
        reads=(source,),
        writes=(
            Written(
                ref=Ref(ref=node.name),
                shape=f"({x}.shape[0], {out[0]}, {out[1]}, {x}.shape[3])",
                spec=node.spec,
            ),
        ),
        sizes=(
            Size(name="images", expression=f"{x}.shape[0]"),
            Size(name="height", expression=height),
            Size(name="width", expression=width),
            Size(name="channels", expression=f"{x}.shape[3]"),
            Size(name="out_height", expression=out[0]),
            Size(name="out_width", expression=out[1]),
        ),
        checks=() if pool.adaptive else _checks(pool, x),
        note=f"{pool.kind} pooling of images, channels last",
        moved_bytes=spec.nbytes + node.spec.nbytes,
        operations=spec.numel if pool.adaptive else elements,
    )


def _checks(pool: Pool, x: str) -> tuple[Check, ...]:
    """What the library would complain of: windows that the image has no room for."""
    found = []
    for axis in (1, 2):
        reach = pool.dilation[axis] * (pool.window[axis] - 1) + 1 - 2 * pool.padding[axis]
        found.append(
            Check(
                left=f"({x}.shape[{axis}] < {max(reach, 1)})",
                right="False",
                sentence=f"dimension {axis + 1} of what is pooled is shorter than a window",
            )
        )
    return tuple(found)


def _source(pool: Pool, name: str) -> str:
    if pool.adaptive:
        window = "constexpr int64_t STEP_H = 1, STEP_W = 1;"
        rows = _ADAPTIVE_SPAN.format(o="oh", size="height", outputs="out_height")
        columns = _ADAPTIVE_SPAN.format(o="ow", size="width", outputs="out_width")
    else:
        window = _WINDOW.format(step_h=pool.dilation[1], step_w=pool.dilation[2])
        rows, columns = (
            _inside(pool, axis, o, size)
            for axis, o, size in ((1, "oh", "height"), (2, "ow", "width"))
        )
    over, divisor = "", ""
    if pool.kind == "avg":
        over, divisor = " / divisor", f"            const float divisor = {_divisor(pool)};"
    return _CPP.format(
        name=name, window=window, join=_SUM if pool.kind == "avg" else _LARGEST, rows=rows,
        columns=columns, over=over, divisor=divisor,
    )  # fmt: skip


def _inside(pool: Pool, axis: int, o: str, size: str) -> str:
    numbers = (pool.window[axis], pool.stride[axis], pool.padding[axis], pool.dilation[axis])
    return f"inside<{', '.join(map(str, numbers))}>({o}, {size})"


def _divisor(pool: Pool) -> str:
    """How many elements count in a window: those in the image, or with its padding."""
    if pool.adaptive or not pool.count_padding:
        return "(rows.last - rows.first) * (columns.last - columns.first)"
    terms = []
    for axis, o, size in ((1, "oh", "height"), (2, "ow", "width")):
        start = f"({o} * {pool.stride[axis]} - {pool.padding[axis]})"
        window, padding = pool.window[axis], pool.padding[axis]
        terms.append(
            f"(({start} + {window} < {size} + {padding} ? {start} + {window} : {size} + {padding})"
            f" - {start})"
        )
    return " * ".join(terms)
