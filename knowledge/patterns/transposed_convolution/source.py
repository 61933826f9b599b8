"""Prints the C++ of a transposed convolution: tables of its phases, and how tasks are cut."""

from math import prod

from knowledge.loops.epilogue import Epilogue
from knowledge.patterns.transposed_convolution.body import BODY_CPP
from knowledge.patterns.transposed_convolution.match import Transposed
from knowledge.patterns.transposed_convolution.phases import Layout
from knowledge.tiles import TILE_CPP


def print_source(
    name: str, call: Transposed, layout: Layout, panels: int, fused: tuple[Epilogue, int] | None
) -> str:
    """The whole translation unit.

    Args:
        name: of the extern "C" function.
        call: what is computed.
        layout: its phases.
        panels: how many panels of packed windows are multiplied with a tile of weights in a row.
        fused: an epilogue, and how many of the result's dimensions tell its units apart.
    """
    parts = [
        "#include <algorithm>\n#include <cstdint>\n#include <cstring>\n#include <memory>\n"
        "#include <vector>\n#include <omp.h>",
        *([fused[0].source.strip("\n")] if fused else []),
        TILE_CPP.strip("\n"),
        _tables(call, layout, panels),
        BODY_CPP.strip("\n"),
        _entry(name, call, fused),
    ]
    return "\n\n".join(parts) + "\n"


def _row(numbers: tuple[int, ...] | list[int]) -> str:
    return "{" + ", ".join(str(number) for number in numbers) + "}"


def _tables(call: Transposed, layout: Layout, panels: int) -> str:
    axes = call.axes
    lines = [
        "// Axes from the outermost to the innermost. Output o = STRIDE step + BASE + phase takes",
        "// input step + LOWEST + shift through the taps below.",
        f"constexpr int64_t WINDOW = {prod(axis.window for axis in axes)}, GROUPS = {call.groups};",
        f"constexpr int64_t STRIDE[3] = {_row([axis.stride for axis in axes])};",
        "constexpr int64_t EDGE[3] = "
        + _row([a.dilation * (a.window - 1) + a.extra + 1 - 2 * a.padding for a in axes])
        + ";  // output size = (input size - 1) * STRIDE + EDGE",
        f"constexpr int64_t BASE[3] = {_row(layout.base)}, LOWEST[3] = {_row(layout.lowest)};",
        f"constexpr int64_t BOX[3] = {_row(layout.box)};  // how far shifts reach, plus one",
        f"constexpr int64_t SHIFTS = {len(layout.shifts)};",
        "constexpr int64_t SHIFT[SHIFTS][3] = {" + ", ".join(map(_row, layout.shifts)) + "};",
        f"constexpr int64_t PHASES = {prod(axis.stride for axis in axes)};",
        f"constexpr int64_t CHANNELS = {layout.channels};  // computed together",
        f"constexpr int64_t PANELS = {panels};  // of TILE_COLUMNS positions, likewise",
        "",
        "// Phases that take the same shifts: runs of neighbouring shifts, the taps of each phase.",
        "struct Kind {",
        "    int64_t phases, shifts, runs;",
        "    const int64_t (*run)[2];",
        "    const int64_t *phase, *tap;",
        "};",
    ]
    for number, kind in enumerate(layout.kinds):
        runs = ", ".join(_row(run) for run in kind.runs) or "{0, 0}"
        taps = [tap for one in kind.taps for tap in one] or [0]
        lines += [
            f"static const int64_t RUN{number}[][2] = {{{runs}}};",
            f"static const int64_t PHASE{number}[] = {_row(kind.phases)};",
            f"static const int64_t TAP{number}[] = {_row(taps)};",
        ]
    lines.append(f"constexpr int64_t KINDS = {len(layout.kinds)};")
    lines.append("static const Kind KIND[KINDS] = {")
    for number, kind in enumerate(layout.kinds):
        sizes = f"{len(kind.phases)}, {len(kind.shifts)}, {len(kind.runs)}"
        lines.append(f"    {{{sizes}, RUN{number}, PHASE{number}, TAP{number}}},")
    lines.append("};")
    return "\n".join(lines)


_HEAD = """\
extern "C" void {name}({parameters}) {{
    const Shape s = shape_of(in_channels, channels, outer, middle, inner);
    if (batch * channels * s.plane() <= 0) return;
    const int64_t blocks = s.blocks(), size = packed_size(s);
    const std::unique_ptr<float[]> packed(new float[GROUPS * blocks * size + 1]);
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < GROUPS * blocks; ++i)
        pack_weights(weight + i / blocks * s.in_channels * s.channels * WINDOW, s, i % blocks,
                     packed.get() + i * size);
"""

# Whole images: what is done to them may mix channels.
_IMAGES = """\
#pragma omp parallel
    {{
        Buffers mine(s, slab_of(s), {scratch});
#pragma omp for schedule(dynamic)
        for (int64_t n = 0; n < batch; ++n) {{
            float* block = {block};
            for (int64_t g = 0; g < GROUPS; ++g)
                convolve(x + (n * GROUPS + g) * s.in_channels * s.image(),
                         packed.get() + g * blocks * size, {bias},
                         block + g * s.channels * s.plane(), s, 0, blocks, 0, s.steps[0], mine);
            {call}
        }}
    }}
}}
"""

# Some channels of a group of an image, as many as stay in cache if an epilogue waits for them.
_PLANES = """\
    // Enough tasks for all threads, as large as they may be: windows are packed once a task.
    const int64_t images = batch * GROUPS, wanted = 2 * omp_get_max_threads();
    const int64_t slices = {slices};
    const int64_t most = {most};
    const int64_t parts = (wanted + images * slices - 1) / (images * slices);
    const int64_t cuts = std::max((blocks + most - 1) / most, std::min(parts, blocks));
    const int64_t share = (blocks + cuts - 1) / cuts, chunks = (blocks + share - 1) / share;
#pragma omp parallel
    {{
        Buffers mine(s, slab_of(s), {scratch});
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < images * chunks * slices; ++task) {{
            const int64_t i = task / (chunks * slices), g = i % GROUPS;
            const int64_t slice = task % slices, block = task / slices % chunks * share;
            const int64_t end = std::min(block + share, blocks);
            const int64_t unit = i * s.channels + block * CHANNELS;
            const int64_t last = i * s.channels + std::min(end * CHANNELS, s.channels);
            float* out = {out};
            convolve(x + i * s.in_channels * s.image(), packed.get() + g * blocks * size,
                     {bias}, out, s, block, end,
                     slice * s.steps[0] / slices, (slice + 1) * s.steps[0] / slices, mine);
            {call}
        }}
    }}
}}
"""


def _entry(name: str, call: Transposed, fused: tuple[Epilogue, int] | None) -> str:
    writes = fused is None or fused[0].keeps_anchor
    parameters = ["const float* x", "const float* weight"]
    parameters += ["const float* bias"] if call.bias else []
    reads, results, counts = _extra(fused)
    parameters += [*reads, *(["float* made"] if writes else []), *results]
    sizes = ("batch", "in_channels", "channels", "outer", "middle", "inner")
    parameters += [*(f"int64_t {size}" for size in sizes), *counts]
    head = _HEAD.format(name=name, parameters=(",\n" + " " * 8).join(["", *parameters])[1:])
    images = fused is not None and fused[1] == 1
    body = _images(call, fused, writes) if images else _planes(call, fused, writes)
    return head + body


def _images(call: Transposed, fused: tuple[Epilogue, int] | None, writes: bool) -> str:
    assert fused is not None
    start = "made" if writes else "block - n * channels * s.plane()"
    return _IMAGES.format(
        scratch="0" if writes else "channels * s.plane()",
        block="made + n * channels * s.plane()" if writes else "mine.result.data()",
        bias="bias + g * s.channels" if call.bias else "nullptr",
        call=fused[0].call(start, "n", "n + 1", "batch"),
    )


def _planes(call: Transposed, fused: tuple[Epilogue, int] | None, writes: bool) -> str:
    most = "std::max<int64_t>(SCRATCH / (CHANNELS * s.plane()), 1)" if fused else "blocks"
    start = "made" if writes else "out - unit * s.plane()"
    slices = "std::min((wanted + images - 1) / images, s.steps[0])" if fused is None else "1"
    text = _PLANES.format(
        slices=slices,
        most=most,
        scratch="0" if writes else "std::min(share * CHANNELS, s.channels) * s.plane()",
        out="made + unit * s.plane()" if writes else "mine.result.data()",
        bias="bias + g * s.channels" if call.bias else "nullptr",
        call=fused[0].call(start, "unit", "last", "batch * channels") if fused else "",
    )
    lines = [line for line in text.split("\n") if line.strip() or not line]
    unused = () if fused else ("const int64_t last =",)
    return "\n".join(line for line in lines if not any(word in line for word in unused))


def _extra(fused: tuple[Epilogue, int] | None) -> tuple[list[str], list[str], list[str]]:
    """The parameters of an epilogue: what it reads, what it writes, and sizes."""
    if fused is None:
        return [], [], []
    every = fused[0].parameters.split(", ")
    reads = len(fused[0].reads)
    writes = reads + len(fused[0].writes)
    return every[:reads], every[reads:writes], every[writes:]
