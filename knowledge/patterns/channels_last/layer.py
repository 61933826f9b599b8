"""A convolution of our own on channels-last images, with what follows it done while in cache."""

from dataclasses import dataclass
from math import prod
from textwrap import fill

from knowledge.loops.epilogue import Epilogue, find_epilogue
from knowledge.opgraph import Node, Ref
from knowledge.patterns.channels_last.depthwise import DEPTHWISE_CPP
from knowledge.patterns.channels_last.direct import DIRECT_CPP, STRIP_CPP
from knowledge.patterns.channels_last.winograd import WINOGRAD_CPP
from knowledge.patterns.convolution.window import Window
from knowledge.program import Check, Kernel, Program, Size, Written, variable
from knowledge.tiles import TILE_CPP

# Of the peak of a product: a tile of pixels reads six or twelve places where a packed panel is one.
DIRECT, DEPTHWISE = 0.85, 0.3
# Of what the direct kernel takes: 2.25 times fewer products, less the transforms.
WINOGRAD = 1.6
# A tile's start and end, in steps of the window.
TILE_OVERHEAD = 16
_HEADERS = "\n".join(
    f"#include <{one}>" for one in ("cstdint", "cstring", "mutex", "vector", "omp.h")
)


@dataclass(frozen=True)
class Layer:
    """A call that convolves: (N, H, W, C) with (F, C, kernel) to (N, H', W', F).

    `winograd` says by which algorithm; `suits_winograd` must hold of the window.
    """

    node: Node
    window: Window
    winograd: bool = False

    @property
    def bias(self) -> bool:
        """Whether the call has a bias."""
        return len(self.node.refs) == 3

    def output_sizes(self) -> tuple[str, str]:
        """Height and width of the result, as Python expressions."""
        x, w = variable(self.node.refs[0]), self.window
        high, wide = (
            f"(({x}.shape[{axis + 1}] + {w.before[axis] + w.after[axis] - self.reach(axis)})"
            f" // {w.stride[axis]} + 1)"
            for axis in (0, 1)
        )
        return high, wide

    def reach(self, axis: int) -> int:
        """How many pixels a window spans."""
        return self.window.dilation[axis] * (self.window.kernel[axis] - 1) + 1


def can_compute(window: Window) -> bool:
    """Whether there is a kernel for a layer: one group, or a group for every channel."""
    return window.groups == 1 or (window.channels == 1 and window.filters == 1)


def suits_winograd(window: Window) -> bool:
    """Whether a layer can be, and had better be, computed by Winograd's algorithm."""
    plain = {*window.stride, *window.dilation, window.groups} == {1} and window.kernel == (3, 3)
    return plain and window.channels % 16 == 0 and min(window.channels, window.filters) >= 32


def own_share(window: Window) -> float:
    """Of the peak, with no transforms: filters fill vectors, and the window is long."""
    if window.groups > 1:
        return DEPTHWISE
    depth = window.channels * window.taps
    filled = window.filters / (-(-window.filters // 16) * 16)
    return DIRECT * filled * depth / (depth + TILE_OVERHEAD)


def layer_kernel(program: Program, layer: Layer, name: str) -> Kernel:
    """The kernel of a layer, with the largest epilogue that can be done to whole pixels."""
    graph, node, window = program.graph, layer.node, layer.window
    x, filters = variable(node.refs[0]), window.groups * window.filters
    shape = (f"{x}.shape[0]", *layer.output_sizes(), str(filters))
    epilogue = find_epilogue(program, node.name, 3, shape)
    writes: tuple[Written, ...] = ()
    if epilogue is None or epilogue.keeps_anchor:
        whole = f"({', '.join(shape)})"
        writes = (Written(ref=Ref(ref=node.name), shape=whole, spec=node.spec),)
    reads = node.refs + (epilogue.reads if epilogue else ())
    written = (epilogue.writes if epilogue else ()) + writes
    sizes = (*(epilogue.sizes if epilogue else ()), *_sizes(x, layer))
    nodes = (node.name, *(epilogue.nodes if epilogue else ()))
    moved = sum(graph.spec_of(ref).nbytes for ref in dict.fromkeys(reads))
    return Kernel(
        name=name,
        source=_source(layer, name, epilogue),
        signature="p" * (len(reads) + len(written)) + "i" * len(sizes),
        nodes=nodes,
        reads=reads,
        writes=written,
        sizes=sizes,
        checks=(*_checks(x, layer), *(epilogue.checks if epilogue else ())),
        note=_note(layer, len(nodes) - 1),
        moved_bytes=moved + sum(one.spec.nbytes for one in written),
        operations=epilogue.operations if epilogue else 0,
        flops=2 * node.spec.numel * prod(window.kernel) * window.channels,
        efficiency=own_share(window) * (WINOGRAD if layer.winograd else 1.0),
    )


def _note(layer: Layer, inside: int) -> str:
    way = "Winograd's convolution" if layer.winograd else "convolution"
    return f"{way}, channels last; {inside} calls in its epilogue"


def _sizes(x: str, layer: Layer) -> tuple[Size, ...]:
    high, wide = layer.output_sizes()
    return (
        Size(name="images", expression=f"{x}.shape[0]"),
        Size(name="height", expression=f"{x}.shape[1]"),
        Size(name="width", expression=f"{x}.shape[2]"),
        Size(name="out_height", expression=high),
        Size(name="out_width", expression=wide),
    )


def _checks(x: str, layer: Layer) -> tuple[Check, ...]:
    w = layer.window
    weight = (w.groups * w.filters, w.channels, *w.kernel)
    channels = w.groups * w.channels
    fits = (
        f"{x}.shape[{axis + 1}] >= {layer.reach(axis) - w.before[axis] - w.after[axis]}"
        for axis in (0, 1)
    )
    return (
        Check(
            left=f"({x}.shape[3], *{variable(layer.node.refs[1])}.shape)",
            right=str((channels, *weight)),
            sentence=f"this convolution takes {channels} channels and a weight of {weight}",
        ),
        Check(
            left=f"({' and '.join(fits)})",
            right="True",
            sentence="the window of this convolution is larger than the padded image",
        ),
    )


def _constants(window: Window) -> str:
    rows = (
        ("K", window.kernel), ("S", window.stride), ("P", window.before), ("D", window.dilation)
    )  # fmt: skip
    lines = [f"constexpr int64_t {key}H = {two[0]}, {key}W = {two[1]};" for key, two in rows]
    lines.append(
        f"constexpr int64_t CHANNELS = {window.groups * window.channels}, "
        f"FILTERS = {window.groups * window.filters};"
    )
    padded = "true" if any(window.before + window.after) else "false"
    return "\n".join([*lines, f"constexpr bool PADDED = {padded};"])


def _source(layer: Layer, name: str, epilogue: Epilogue | None) -> str:
    kept = epilogue is None or epilogue.keeps_anchor
    given = [one for one in epilogue.parameters.split(", ") if one] if epilogue else []
    written = len(epilogue.reads) + len(epilogue.writes) if epilogue else 0
    parameters = ["const float* x", "const float* weight"]
    parameters += ["const float* bias"] if layer.bias else []
    parameters += [*given[:written], *(["float* result"] if kept else []), *given[written:]]
    parameters += [
        f"int64_t {one}" for one in ("images", "height", "width", "out_height", "out_width")
    ]
    told = fill(", ".join(parameters), 90, subsequent_indent=" " * 8)
    finish = "[](const float*, int64_t, int64_t) {}"
    if epilogue is not None:
        call = epilogue.call("done - first * FILTERS", "first", "last", "units")
        finish = f"[=](const float* done, int64_t first, int64_t last) {{\n        {call}\n    }}"
    units = "    const int64_t units = images * out_height * out_width;\n" if epilogue else ""
    entry = (
        f'extern "C" void {name}(\n        {told}) {{\n'
        f"    if (images * out_height * out_width == 0) return;\n{units}"
        f"    const auto finish = {finish};\n"
        f"    convolve(x, weight, {'bias' if layer.bias else 'nullptr'}, "
        f"{'result' if kept else 'nullptr'},\n"
        "             {images, height, width, out_height, out_width}, finish);\n}"
    )
    texts = [_HEADERS, _constants(layer.window), TILE_CPP]
    if layer.window.groups > 1:
        texts.append(DEPTHWISE_CPP)
    else:
        texts += [STRIP_CPP, WINOGRAD_CPP if layer.winograd else DIRECT_CPP]
    parts = [text.strip("\n") for text in texts]
    if epilogue is not None:
        parts.insert(0, epilogue.source.strip("\n"))
    return "\n\n".join([*parts, entry])
