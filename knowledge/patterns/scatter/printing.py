"""C++ of scattered sums: each thread sums the rows of the results that are its own."""

from dataclasses import dataclass

from knowledge.loops.spelling import STORAGE

_HEADERS = "#include <cmath>\n#include <cstdint>\n#include <cstring>\n#include <omp.h>\n"

_ADDED = """{headers}
// Each row of source is added to the row of out that its target says. Threads own runs of rows of
// out, and each walks the whole index: sums are in the order of the index on any number of threads.
extern "C" void {name}(
        {parameters}, const {index}* __restrict__ targets, const {type}* __restrict__ source,
        {type}* __restrict__ out, int64_t* __restrict__ outside,
        int64_t rows, int64_t count, int64_t width) {{
    int64_t wrong = 0;
    #pragma omp parallel reduction(max : wrong) if (count * width > 16384)
    {{
        const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
        const int64_t low = rows * thread / threads, high = rows * (thread + 1) / threads;
        {start}
        for (int64_t at = 0; at < count; ++at) {{
            const int64_t target = targets[at];
            if (target < 0 || target >= rows) wrong = 1;
            if (target < low || target >= high) continue;
            const {type}* from = source + at * width;
            {type}* to = out + target * width;
            #pragma omp simd
            for (int64_t col = 0; col < width; ++col) to[col] += {term};
        }}
    }}
    *outside = wrong;
}}
"""
_BAGGED = """{headers}
// Each bag is a run of the index, from its offset to the next one's; its rows of weight are joined.
extern "C" void {name}(
        const {type}* __restrict__ weight, const {index}* __restrict__ indices,
        const {index}* __restrict__ offsets, {type}* __restrict__ out,
        int64_t* __restrict__ outside,
        int64_t bags, int64_t count, int64_t rows, int64_t width) {{
    int64_t wrong = 0;
    #pragma omp parallel for schedule(static) reduction(max : wrong) if (count * width > 16384)
    for (int64_t bag = 0; bag < bags; ++bag) {{
        const int64_t first = offsets[bag], last = bag + 1 < bags ? offsets[bag + 1] : count;
        {type}* to = out + bag * width;
        for (int64_t col = 0; col < width; ++col) to[col] = 0;
        if (first < 0 || last > count || first > last) {{
            wrong = 1;
            continue;
        }}
        for (int64_t at = first; at < last; ++at) {{
            const int64_t row = indices[at];
            if (row < 0 || row >= rows) {{
                wrong = 1;
                continue;
            }}
            const {type}* from = weight + row * width;
            {join}
        }}{finish}
    }}
    *outside = wrong;
}}
"""
_SUM = """#pragma omp simd
            for (int64_t col = 0; col < width; ++col) to[col] += from[col];"""
# As the library: what is larger takes its place, and the first in any case.
_MAXIMUM = """const bool begins = at == first;
            #pragma omp simd
            for (int64_t col = 0; col < width; ++col) {
                to[col] = begins || from[col] > to[col] ? from[col] : to[col];
            }"""
_MEAN = """
        if (last > first) {{
            const {type} size = static_cast<{type}>(last - first);
            #pragma omp simd
            for (int64_t col = 0; col < width; ++col) to[col] /= size;
        }}"""


@dataclass(frozen=True)
class Types:
    """The C++ types of what is summed, and of the index."""

    dtype: str
    index: str


def print_added(name: str, types: Types, alpha: float, from_zero: bool) -> str:
    """Index_add along the first dimension; `from_zero`: what it adds to is 0 and not read."""
    kind = STORAGE[types.dtype]
    suffix = "f" if kind == "float" else ""
    term = "from[col]" if alpha == 1 else f"{float(alpha)!r}{suffix} * from[col]"
    size = f"(high - low) * width * sizeof({kind})"
    copied = f"std::memcpy(out + low * width, start + low * width, {size});"
    text = _ADDED.format(
        headers=_HEADERS, name=name, type=kind, index=STORAGE[types.index], term=term,
        parameters=f"const {kind}* __restrict__ start",
        start=f"std::memset(out + low * width, 0, {size});" if from_zero else copied,
    )  # fmt: skip
    return text.replace(f"const {kind}* __restrict__ start, ", "") if from_zero else text


def print_bagged(name: str, types: Types, mode: int) -> str:
    """An embedding bag: mode 0 sums, 1 averages, 2 takes the maximum."""
    kind = STORAGE[types.dtype]
    return _BAGGED.format(
        headers=_HEADERS, name=name, type=kind, index=STORAGE[types.index],
        join=_MAXIMUM if mode == 2 else _SUM, finish=_MEAN.format(type=kind) if mode == 1 else "",
    )  # fmt: skip
