"""Prints one convolution, with what follows it, as a kernel."""

from math import prod
from textwrap import fill

from knowledge.loops.cost import read_bytes
from knowledge.loops.epilogue import Epilogue, find_epilogue
from knowledge.opgraph import Ref
from knowledge.patterns.convolution.drivers import DIRECT_CPP, GEMM_CPP
from knowledge.patterns.convolution.efficiency import own_share
from knowledge.patterns.convolution.window import Call, Window
from knowledge.patterns.convolution.windows import WINDOWS_CPP
from knowledge.program import Check, Kernel, Program, Size, Written, variable

_HEADERS = "\n".join(
    f"#include <{name}>" for name in ("algorithm", "cstdint", "cstring", "memory", "omp.h")
)


def best_epilogue(program: Program, call: Call) -> tuple[Epilogue | None, int]:
    """What can be done to the result in cache, and how many dimensions tell its units apart.

    Planes (2) where they are all that is needed, whole images (1) where that takes more calls in.
    """
    shape = call.result_shape()
    planes = find_epilogue(program, call.name, 2, shape)
    images = find_epilogue(program, call.name, 1, shape)
    if images is not None and (planes is None or len(images.nodes) > len(planes.nodes)):
        return images, 1
    return planes, 2 if planes is not None else 0


def make_kernel(program: Program, call: Call, name: str, fused: bool) -> Kernel:
    """The kernel of a convolution; `fused` takes in what can be done to its result in cache."""
    graph, window = program.graph, call.window
    epilogue, units = best_epilogue(program, call) if fused else (None, 0)
    spec = graph.by_name[call.name].spec
    own = (call.image, call.weight, *((call.bias,) if call.bias else ()))
    writes: tuple[Written, ...] = ()
    if epilogue is None or epilogue.keeps_anchor:
        shape = f"({', '.join(call.result_shape())})"
        writes = (Written(ref=Ref(ref=call.name), shape=shape, spec=spec),)
    reads = own + (epilogue.reads if epilogue else ())
    written = (epilogue.writes if epilogue else ()) + writes
    sizes = (*(epilogue.sizes if epilogue else ()), *_sizes(call))
    nodes = (call.name, *(epilogue.nodes if epilogue else ()))
    return Kernel(
        name=name,
        source=_source(call, name, epilogue, units),
        signature="p" * (len(reads) + len(written)) + "i" * len(sizes),
        nodes=nodes,
        reads=reads,
        writes=written,
        sizes=sizes,
        checks=(*checks_of(program, call), *(epilogue.checks if epilogue else ())),
        note=_note(program, nodes),
        moved_bytes=read_bytes(graph, reads) + sum(one.spec.nbytes for one in written),
        operations=epilogue.operations if epilogue else 0,
        flops=2 * spec.numel * prod(window.kernel) * window.channels,
        efficiency=own_share(window, spec.shape),
    )


def _note(program: Program, nodes: tuple[str, ...]) -> str:
    told = " -> ".join(program.graph.by_name[n].target.split(".")[1].strip("_") for n in nodes)
    return told if len(told) < 90 else f"{told[:86]}..."


def _sizes(call: Call) -> tuple[Size, ...]:
    image = variable(call.image)
    letters = "dhw"[3 - call.window.rank :]
    sizes = [Size(name="images", expression=f"{image}.shape[0]")]
    sizes += [
        Size(name=f"in_{letter}", expression=f"{image}.shape[{axis + 2}]")
        for axis, letter in enumerate(letters)
    ]
    outputs = call.window.output_sizes(image)
    sizes += [
        Size(name=f"out_{letter}", expression=text)
        for letter, text in zip(letters, outputs, strict=True)
    ]
    return tuple(sizes)


def checks_of(program: Program, call: Call) -> tuple[Check, ...]:
    """What must hold of a convolution's operands."""
    image, window = variable(call.image), call.window
    weight = program.graph.spec_of(call.weight).shape
    channels, filters = window.groups * window.channels, window.groups * window.filters
    bias = () if call.bias is None else (
        Check(
            left=f"{variable(call.bias)}.shape",
            right=f"({filters},)",
            sentence=f"this convolution takes a bias of {filters} elements",
        ),
    )  # fmt: skip
    return (
        *bias,
        Check(
            left=f"({image}.shape[1], *{variable(call.weight)}.shape)",
            right=str((channels, *weight)),
            sentence=f"this convolution takes {channels} channels and a weight of shape {weight}",
        ),
        Check(
            left=window.fits(image),
            right="True",
            sentence="the window of this convolution is larger than the padded image",
        ),
    )


def _source(call: Call, name: str, epilogue: Epilogue | None, units: int) -> str:
    window = call.window
    driver = DIRECT_CPP if window.depthwise else GEMM_CPP
    constants = f"// Of the window (depth, height, width) and of one group.\n{window.constants()}"
    told = "// How many of the result's first dimensions tell apart what is finished as a whole.\n"
    constants += f"\n{told}constexpr int64_t UNITS = {units};"
    parts = [_HEADERS, constants, WINDOWS_CPP.strip("\n"), driver.strip("\n")]
    if epilogue:
        parts.insert(0, epilogue.source.strip("\n"))
    return "\n\n".join([*parts, _entry(call, name, epilogue, units)])


def _entry(call: Call, name: str, epilogue: Epilogue | None, units: int) -> str:
    window = call.window
    letters = "dhw"[3 - window.rank :]
    reads = ["const float* input", "const float* weight"]
    reads += ["const float* bias"] if call.bias else []
    sizes = ["images", *(f"in_{a}" for a in letters), *(f"out_{a}" for a in letters)]
    kept = epilogue is None or epilogue.keeps_anchor
    parameters = fill(_parameters(reads, sizes, epilogue, kept), 90, subsequent_indent=" " * 8)
    inner, outer = _extent("in", window), _extent("out", window)
    bias, result = "bias" if call.bias else "nullptr", "result" if kept else "nullptr"
    return (
        f'extern "C" void {name}(\n        {parameters}) {{\n'
        f"    const Extent in = {inner}, out = {outer};\n"
        f"{_finish(window, epilogue, units)}"
        "    if (images == 0) return;\n"
        f"    convolve(input, weight, {bias}, {result}, images, in, out, finish);\n}}"
    )


def _parameters(reads: list[str], sizes: list[str], epilogue: Epilogue | None, kept: bool) -> str:
    """In the order of the kernel's reads, writes and sizes; the epilogue's own lie in between."""
    given = [one for one in epilogue.parameters.split(", ") if one] if epilogue else []
    taken = len(epilogue.reads) if epilogue else 0
    written = taken + (len(epilogue.writes) if epilogue else 0)
    parameters = [*reads, *given[:written], *(["float* result"] if kept else [])]
    parameters += [*given[written:], *(f"int64_t {size}" for size in sizes)]
    return ", ".join(parameters)


def _extent(prefix: str, window: Window) -> str:
    missing = ["1"] * (3 - window.rank)
    letters = "dhw"[3 - window.rank :]
    return f"{{{', '.join([*missing, *(f'{prefix}_{letter}' for letter in letters)])}}}"


def _finish(window: Window, epilogue: Epilogue | None, units: int) -> str:
    if epilogue is None:
        return "    const auto finish = [](const float*, int64_t, int64_t) {};\n"
    filters = window.groups * window.filters
    total = "images" if units == 1 else f"images * {filters}"
    size = f"out.size() * {filters}" if units == 1 else "out.size()"
    copy = "        std::copy_n(done, (last - first) * size, result + first * size);\n"
    return (
        f"    const int64_t units = {total}, size = {size};\n"
        "    const auto finish = [=](const float* done, int64_t first, int64_t last) {\n"
        f"{copy if epilogue.keeps_anchor else ''}"
        f"        {epilogue.call('done - first * size', 'first', 'last', 'units')}\n"
        "    };\n"
    )
