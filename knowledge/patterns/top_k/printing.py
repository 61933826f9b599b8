"""C++ that picks the first of every row: floats as whole numbers of the same order, in blocks."""

from dataclasses import dataclass

from knowledge.loops.mathematics import helpers
from knowledge.loops.spelling import STORAGE, loaded

_HEADERS = "#include <cmath>\n#include <cstdint>\n#include <cstring>\n#include <vector>\n"
_SOURCE = """
typedef {element} element;
typedef {value} value;
// Whole numbers are compared in one instruction, and order NaN.
typedef {key} key;
constexpr key TAKEN = {lowest}, MAGNITUDE = {highest};
constexpr int64_t PICKED = {picked}, BLOCK = {block};

// Numbers in the order in which they are picked; -0.0 is 0.0. What was picked before comes last.
static inline key key_of(value x) {{
    key bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits = bits == TAKEN ? 0 : bits;
    bits ^= (bits >> (8 * sizeof(key) - 1)) & MAGNITUDE;
    return x != x ? {nan} : {ordered};
}}

// The first of a row into `places`. Of each block the best is kept, so that a pick looks through
// one block and the bests; of equals the first is picked.
static void pick_row(
        const element* __restrict__ row, int64_t length, int64_t blocks, key* __restrict__ keys,
        key* __restrict__ bests, int64_t* __restrict__ places) {{
    for (int64_t i = length; i < blocks * BLOCK; ++i) keys[i] = TAKEN;
    #pragma omp simd
    for (int64_t i = 0; i < length; ++i) keys[i] = key_of({loaded});
    for (int64_t block = 0; block < blocks; ++block) {{
        key best = TAKEN;
        #pragma omp simd reduction(max : best)
        for (int64_t i = 0; i < BLOCK; ++i) {{
            const key one = keys[block * BLOCK + i];
            best = best > one ? best : one;
        }}
        bests[block] = best;
    }}
    for (int64_t n = 0; n < PICKED; ++n) {{
        key best = TAKEN;
        #pragma omp simd reduction(max : best)
        for (int64_t block = 0; block < blocks; ++block)
            best = best > bests[block] ? best : bests[block];
        key at_block = MAGNITUDE;
        #pragma omp simd reduction(min : at_block)
        for (int64_t block = 0; block < blocks; ++block) {{
            const key here = bests[block] == best ? static_cast<key>(block) : MAGNITUDE;
            at_block = at_block < here ? at_block : here;
        }}
        key* __restrict__ of = keys + at_block * BLOCK;
        key at = MAGNITUDE;
        #pragma omp simd reduction(min : at)
        for (int64_t i = 0; i < BLOCK; ++i) {{
            const key here = of[i] == best ? static_cast<key>(i) : MAGNITUDE;
            at = at < here ? at : here;
        }}
        of[at] = TAKEN;
        key left = TAKEN;
        #pragma omp simd reduction(max : left)
        for (int64_t i = 0; i < BLOCK; ++i) left = left > of[i] ? left : of[i];
        bests[at_block] = left;
        places[n] = at_block * BLOCK + at;
    }}
}}

extern "C" void {name}(
        const element* __restrict__ x, {parameters}, int64_t rows, int64_t length) {{
    const int64_t blocks = (length + BLOCK - 1) / BLOCK;
    #pragma omp parallel if (rows > 1 && rows * length > 16384)
    {{
        std::vector<key> memory(blocks * (BLOCK + 1));
        key* keys = memory.data();
        key* bests = keys + blocks * BLOCK;
        int64_t picked[PICKED];
        #pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; ++row) {{
            pick_row(x + row * length, length, blocks, keys, bests, picked);
            for (int64_t n = 0; n < PICKED; ++n) {{
                {writes}
            }}
        }}
    }}
}}
"""
# What each type is compared as: its value, and a whole number as wide.
KEYS = {
    "float32": ("float", "int32_t", "INT32"),
    "bfloat16": ("float", "int32_t", "INT32"),
    "float16": ("float", "int32_t", "INT32"),
    "float64": ("double", "int64_t", "INT64"),
}
SMALL_ROW, MIDDLE_ROW = 16, 4096


@dataclass(frozen=True)
class Selection:
    """What is picked.

    Attributes:
        dtype: of the rows.
        length: of a row, as traced; the kernel takes others.
        picked: of each row.
        largest: else the smallest.
        nan_first: NaN is picked before all others, else after them.
        written: 0 for the values, 1 for their places.
    """

    dtype: str
    length: int
    picked: int
    largest: bool
    nan_first: bool
    written: tuple[int, ...]


def block_of(length: int) -> int:
    """Elements of a block: a row that is short is one; of a long one there are few bests."""
    if length <= SMALL_ROW:
        return 16
    return 64 if length <= MIDDLE_ROW else 256


def print_top_k(name: str, selection: Selection) -> str:
    """The source of a kernel of this name."""
    dtype = selection.dtype
    value, key, limits = KEYS[dtype]
    written = (
        ("element* __restrict__ values", "values[row * PICKED + n] = x[row * length + picked[n]];"),
        ("int64_t* __restrict__ places", "places[row * PICKED + n] = picked[n];"),
    )
    kept = [written[which] for which in selection.written]
    body = _SOURCE.format(
        element=STORAGE[dtype],
        value=value,
        key=key,
        lowest=f"{limits}_MIN",
        highest=f"{limits}_MAX",
        picked=selection.picked,
        block=block_of(selection.length),
        # The smallest are the largest with all bits turned.
        nan="MAGNITUDE" if selection.nan_first else "TAKEN + 1",
        ordered="bits" if selection.largest else "~bits",
        loaded=loaded(dtype, "row[i]"),
        name=name,
        parameters=", ".join(parameter for parameter, _ in kept),
        writes="\n                ".join(line for _, line in kept),
    )
    return _HEADERS + helpers(body, inline=True) + body
