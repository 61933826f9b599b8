"""How CUDA C++ spells what C++ spells otherwise, and the helpers that printed kernels bring along.

NVRTC has no standard headers, but all of CUDA's mathematics: expf, tanhf and their kin within 2
units in the last place, erff and log1pf too (CUDA C++ Programming Guide, mathematical functions).
"""

import re

from knowledge.loops.form import Fold

FOLDS: dict[Fold, str] = {"sum": "Sum", "prod": "Product", "max": "Largest", "min": "Smallest"}

_TYPES = {
    "int8_t": "typedef signed char int8_t;",
    "uint8_t": "typedef unsigned char uint8_t;",
    "int16_t": "typedef short int16_t;",
    "int32_t": "typedef int int32_t;",
    "uint32_t": "typedef unsigned int uint32_t;",
    "int64_t": "typedef long long int64_t;",
    "uint64_t": "typedef unsigned long long uint64_t;",
    "INT64_C": "#define INT64_C(number) number##LL",
    "INT64_MIN": "#define INT64_MIN (-0x7fffffffffffffffLL - 1)",
    "INT64_MAX": "#define INT64_MAX 0x7fffffffffffffffLL",
    "INFINITY": "#define INFINITY __int_as_float(0x7f800000)",
    "NAN": "#define NAN __int_as_float(0x7fffffff)",
}
_HEADERS = {"half": "cuda_fp16.h", "bfloat16": "cuda_bf16.h"}

_HELPERS: dict[str, str] = {
    "bfloat16": """
using bfloat16 = __nv_bfloat16;
""",
    "float_of": """
static __device__ inline float float_of(bfloat16 value) { return __bfloat162float(value); }
""",
    "bfloat16_of": """
static __device__ inline bfloat16 bfloat16_of(float value) { return __float2bfloat16(value); }
""",
    "nan_max": """
// The larger of two; NaN if either is NaN, as torch has it.
template <typename T> static __device__ inline T nan_max(T a, T b) {
    return (a > b || a != a) ? a : b;
}
""",
    "nan_min": """
// The smaller of two; NaN if either is NaN, as torch has it.
template <typename T> static __device__ inline T nan_min(T a, T b) {
    return (a < b || a != a) ? a : b;
}
""",
    "floor_divide": """
static __device__ inline int64_t floor_divide(int64_t a, int64_t b) {
    const int64_t quotient = a / b;
    return quotient - ((a % b != 0) && ((a < 0) != (b < 0)));
}
""",
    "sigmoid": """
template <typename T> static __device__ inline T sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }
""",
    "whole_of": """
// Quotients of indices: a division in 64 bits takes several times as long as one in 32.
static __device__ inline int64_t whole_of(int64_t a, int64_t b) {
    const bool small = (static_cast<uint64_t>(a | b) >> 32) == 0;
    return small ? static_cast<uint32_t>(a) / static_cast<uint32_t>(b) : a / b;
}
""",
    "Pack": """
// Four neighbours, read or written at once where they are all there and aligned.
template <typename T> struct alignas(4 * sizeof(T)) Pack { T at[4]; };
template <typename T> static __device__ inline bool is_whole(const T* place, int64_t left) {
    return left >= 4 && reinterpret_cast<uint64_t>(place) % (4 * sizeof(T)) == 0;
}
""",
    "load_pack": """
template <typename T> static __device__ inline Pack<T> load_pack(const T* place, int64_t left) {
    if (is_whole(place, left)) return *reinterpret_cast<const Pack<T>*>(place);
    Pack<T> pack;
#pragma unroll
    for (int k = 0; k < 4; ++k) pack.at[k] = place[k < left ? k : 0];
    return pack;
}
""",
    "store_pack": """
template <typename T>
static __device__ inline void store_pack(T* place, const Pack<T>& pack, int64_t left) {
    if (is_whole(place, left)) {
        *reinterpret_cast<Pack<T>*>(place) = pack;
        return;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        if (k < left) place[k] = pack.at[k];
    }
}
""",
    "Sum": """
struct Sum {
    template <typename T> static __device__ T start() { return T(0); }
    template <typename T> static __device__ T join(T a, T b) { return a + b; }
};
""",
    "Product": """
struct Product {
    template <typename T> static __device__ T start() { return T(1); }
    template <typename T> static __device__ T join(T a, T b) { return a * b; }
};
""",
    "Largest": """
template <typename T> static __device__ inline T lowest() { return -INFINITY; }
template <> __device__ inline int64_t lowest<int64_t>() { return INT64_MIN; }
struct Largest {
    template <typename T> static __device__ T start() { return lowest<T>(); }
    template <typename T> static __device__ T join(T a, T b) { return nan_max(a, b); }
};
""",
    "Smallest": """
template <typename T> static __device__ inline T highest() { return INFINITY; }
template <> __device__ inline int64_t highest<int64_t>() { return INT64_MAX; }
struct Smallest {
    template <typename T> static __device__ T start() { return highest<T>(); }
    template <typename T> static __device__ T join(T a, T b) { return nan_min(a, b); }
};
""",
    "over_team": """
// What neighbours of a warp hold, joined: `width` of them, a power of 2. All get the result.
template <typename Fold, typename T>
static __device__ inline T over_team(T value, int width = blockDim.x) {
    for (int offset = width / 2; offset > 0; offset /= 2) {
        const T other = static_cast<T>(__shfl_xor_sync(0xffffffff, value, offset));
        value = Fold::join(value, other);
    }
    return value;
}
""",
    "over_block": """
// What the threads of a block hold, joined; it has one thread, or whole warps. All get the result.
template <typename Fold, typename T> static __device__ inline T over_block(T value) {
    __shared__ T parts[32];
    const int threads = blockDim.x * blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
    if (threads == 1) return value;
    value = over_team<Fold>(value, 32);
    if (thread % 32 == 0) parts[thread / 32] = value;
    __syncthreads();
    value = thread % 32 < threads / 32 ? parts[thread % 32] : Fold::template start<T>();
    __syncthreads();
    return over_team<Fold>(value, 32);
}
""",
    "over_column": """
// What the threads of a column of the block hold (those of one threadIdx.x), joined in order.
template <typename Fold, int THREADS, typename T> static __device__ inline T over_column(T value) {
    __shared__ T cells[THREADS];
    cells[threadIdx.y * blockDim.x + threadIdx.x] = value;
    __syncthreads();
    value = cells[threadIdx.x];
    for (int y = 1; y < blockDim.y; ++y) {
        value = Fold::join(value, cells[y * blockDim.x + threadIdx.x]);
    }
    __syncthreads();
    return value;
}
""",
}


def spelled(text: str) -> str:
    """C++ of the shared table of operators, as CUDA has it."""
    text = text.replace("vector_log1p_unit", "vector_log1p")
    text = re.sub(r"\bvector_(\w+)", r"\1", text).replace("std::", "")
    text = re.sub(r"\bnearbyint\b", "rint", text)
    text = re.sub(r"\bfloat_of_half\b", "static_cast<float>", text)
    text = re.sub(r"\bhalf_of\b", "static_cast<half>", text)
    return re.sub(r"\bfloat16\b", "half", text)


def unit(functions: str) -> str:
    """A translation unit: functions with the headers, types and helpers that they need."""
    needed: dict[str, None] = {}
    text, grown = functions, True
    while grown:
        grown = False
        for name, helper in _HELPERS.items():
            if name not in needed and re.search(rf"\b{name}\b", text):
                needed[name] = None
                text += helper
                grown = True
    headers = [f"#include <{_HEADERS[n]}>\n" for n in _HEADERS if re.search(rf"\b{n}\b", text)]
    types = [line + "\n" for name, line in _TYPES.items() if re.search(rf"\b{name}\b", text)]
    standard = ["#ifdef __CUDACC_RTC__  // NVRTC brings no standard headers.\n", *types]
    standard += ["#else\n", "#include <cmath>\n", "#include <cstdint>\n", "#endif\n"]
    parts = [helper for name, helper in _HELPERS.items() if name in needed]
    return "".join([*headers, *standard, *parts, "\n", functions])
