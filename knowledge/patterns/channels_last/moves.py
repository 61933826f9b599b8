"""Kernels that bring images into channels-last memory and back, and that fold a batch norm."""

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.channels_last.layouts import TO_CHANNELS_LAST
from knowledge.program import Kernel, Size, Written, variable

# What a transposition reaches of the bandwidth of a plain copy, as more bytes.
_TRANSPOSED = 1.5

_TRANSPOSE_CPP = r"""
#include <cstdint>

// out[c][r] = x[r][c] for each image: blocks of 16 x 16, so that each line of memory is met once.
extern "C" void {name}(
        const float* __restrict__ x, float* __restrict__ out, int64_t images, int64_t rows,
        int64_t columns) {{
    constexpr int64_t BLOCK = 16;
    const int64_t strips = (rows + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) if (images * rows * columns > 16384)
    for (int64_t task = 0; task < images * strips; ++task) {{
        const int64_t image = task / strips, first = task % strips * BLOCK;
        const int64_t last = first + BLOCK < rows ? first + BLOCK : rows;
        const float* from = x + image * rows * columns;
        float* to = out + image * rows * columns;
        for (int64_t c0 = 0; c0 < columns; c0 += BLOCK) {{
            const int64_t c1 = c0 + BLOCK < columns ? c0 + BLOCK : columns;
            if (last - first == BLOCK && c1 - c0 == BLOCK) {{
                for (int64_t c = c0; c < c0 + BLOCK; ++c)
#pragma GCC unroll 16
                    for (int64_t r = 0; r < BLOCK; ++r)
                        to[c * rows + first + r] = from[(first + r) * columns + c];
                continue;
            }}
            for (int64_t c = c0; c < c1; ++c)
                for (int64_t r = first; r < last; ++r)
                    to[c * rows + r] = from[r * columns + c];
        }}
    }}
}}
"""

_FEW_CPP = r"""
#include <cstdint>

// out[r][c] = x[c][r] for each image, where c counts to {few} alone.
extern "C" void {name}(
        const float* __restrict__ x, float* __restrict__ out, int64_t images, int64_t,
        int64_t rows) {{
    constexpr int64_t FEW = {few}, BLOCK = 256;
    const int64_t strips = (rows + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) if (images * rows > 4096)
    for (int64_t task = 0; task < images * strips; ++task) {{
        const int64_t image = task / strips, first = task % strips * BLOCK;
        const int64_t last = first + BLOCK < rows ? first + BLOCK : rows;
        const float* from = x + image * rows * FEW;
        float* to = out + image * rows * FEW;
        for (int64_t r = first; r < last; ++r)
            for (int64_t c = 0; c < FEW; ++c) to[r * FEW + c] = from[c * rows + r];
    }}
}}
"""

_FOLD_CPP = r"""
#include <cmath>
#include <cstdint>

// scale = weight / sqrt(variance + eps) and shift = bias - mean * scale.
extern "C" void {name}(
        {parameters}, float* scale, float* shift, int64_t channels) {{
    for (int64_t c = 0; c < channels; ++c) {{
        const double factor = {weight} / std::sqrt(variance[c] + {epsilon!r});
        scale[c] = static_cast<float>(factor);
        shift[c] = static_cast<float>({bias} - mean[c] * factor);
    }}
}}
"""
FEW = 8


def move_kernel(graph: OpGraph, node: Node, name: str) -> Kernel:
    """The kernel that brings channels last, or back to where row-major order has them."""
    (source,) = node.refs
    spec, x = graph.spec_of(source), variable(source)
    n, one, two, three = (f"{x}.shape[{dim}]" for dim in range(4))
    if node.target == TO_CHANNELS_LAST:
        channels = spec.shape[1]
        rows, columns, shape = one, f"{two} * {three}", f"({n}, {two}, {three}, {one})"
        few = channels <= FEW
    else:
        rows, columns, shape = f"{one} * {two}", three, f"({n}, {three}, {one}, {two})"
        few = False
    text = _FEW_CPP.format(name=name, few=spec.shape[1]) if few else ""
    return Kernel(
        name=name,
        source=text or _TRANSPOSE_CPP.format(name=name),
        signature="ppiii",
        nodes=(node.name,),
        reads=(source,),
        writes=(Written(ref=Ref(ref=node.name), shape=shape, spec=node.spec),),
        sizes=(
            Size(name="images", expression=n),
            Size(name="rows", expression=rows),
            Size(name="columns", expression=columns),
        ),
        note="channels last" if node.target == TO_CHANNELS_LAST else "channels first, row-major",
        moved_bytes=round(2 * spec.nbytes * _TRANSPOSED),
    )


def fold_kernel(graph: OpGraph, node: Node, name: str, epsilon: float) -> Kernel:
    """The kernel that makes scale and shift of a batch norm with given statistics."""
    affine = len(node.refs) == 4
    names = ("mean", "variance", *(("weight", "bias") if affine else ()))
    mean = variable(node.refs[0])
    assert isinstance(node.result, tuple)
    return Kernel(
        name=name,
        source=_FOLD_CPP.format(
            name=name,
            parameters=", ".join(f"const float* {one}" for one in names),
            weight="weight[c]" if affine else "1.0",
            bias="bias[c]" if affine else "0.0",
            epsilon=epsilon,
        ),
        signature="p" * (len(names) + 2) + "i",
        nodes=(node.name,),
        reads=node.refs,
        writes=tuple(
            Written(ref=Ref(ref=node.name, index=at), shape=f"{mean}.shape", spec=spec)
            for at, spec in enumerate(node.result)
            if spec is not None
        ),
        sizes=(Size(name="channels", expression=f"{mean}.shape[0]"),),
        note="batch norm with given statistics: scale and shift of every channel",
        moved_bytes=6 * graph.spec_of(node.refs[0]).nbytes,
    )
