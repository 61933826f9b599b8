"""From a convolution, plain or transposed, to a Triton kernel with its launcher."""

import re
from dataclasses import dataclass

from knowledge.loops.cost import read_bytes
from knowledge.loops.spelling import indented
from knowledge.loops.triton import call_lines
from knowledge.loops.triton_epilogue import TritonEpilogue, find_triton_epilogue
from knowledge.opgraph import Ref
from knowledge.patterns.convolution.triton_forms import Tiling, Windows
from knowledge.patterns.convolution.triton_windows import MOST_ACROSS, WindowPrinter
from knowledge.program import Check, Kernel, Program, Size, Written


@dataclass(frozen=True)
class Anchor:
    """One convolution of a graph: operands, sizes as Python expressions, what must hold of them.

    `shape` is the result's; `pixels` are the image's spatial sizes. `share` is of the peak.
    """

    name: str
    image: Ref
    weight: Ref
    bias: Ref | None
    windows: Windows
    shape: tuple[str, ...]
    pixels: tuple[str, ...]
    checks: tuple[Check, ...]
    note: str
    flops: int
    share: float


def triton_kernel(
    program: Program, anchor: Anchor, name: str, tiling: Tiling, fused: bool
) -> Kernel:
    """The kernel of a convolution; `fused` takes in pointwise work on its result."""
    graph, made = program.graph, Ref(ref=anchor.name)
    epilogue = find_triton_epilogue(program, made, anchor.shape) if fused else None
    own: tuple[Written, ...] = ()
    if epilogue is None or epilogue.keeps_anchor:
        shape = f"({', '.join(anchor.shape)})"
        own = (Written(ref=made, shape=shape, spec=graph.spec_of(made)),)
    source = _Source(anchor, name, tiling, epilogue, bool(own)).text()
    reads = (anchor.image, anchor.weight, *([anchor.bias] if anchor.bias else []))
    reads += epilogue.reads if epilogue else ()
    writes = (*own, *(epilogue.writes if epilogue else ()))
    letters = anchor.windows.letters
    sizes = [Size(name="images", expression=anchor.shape[0])]
    for prefix, given in (("in", anchor.pixels), ("out", anchor.shape[2:])):
        sizes += [
            Size(name=f"{prefix}_{a}", expression=e) for a, e in zip(letters, given, strict=True)
        ]
    return Kernel(
        name=name,
        source=source,
        language="triton",
        helpers=epilogue.helpers(source) if epilogue else (),
        signature="p" * (len(reads) + len(writes)) + "i" * len(sizes),
        nodes=(anchor.name, *(epilogue.nodes if epilogue else ())),
        reads=reads,
        writes=writes,
        sizes=tuple(sizes),
        checks=(*anchor.checks, _small(anchor), *(epilogue.checks if epilogue else ())),
        note=anchor.note,
        moved_bytes=read_bytes(graph, reads) + sum(one.spec.nbytes for one in writes),
        operations=epilogue.operations if epilogue else 0,
        flops=anchor.flops,
        efficiency=anchor.share,
    )


def _small(anchor: Anchor) -> Check:
    """Places within one image are counted in 32 bits."""
    w = anchor.windows
    image = " * ".join([str(w.groups * w.channels), *anchor.pixels])
    result = " * ".join(anchor.shape[1:])
    return Check(
        left=f"(max({image}, {result}) < {2**31})",
        right="True",
        sentence="one image of this convolution has 2**31 elements or more",
    )


@dataclass(frozen=True)
class _Source:
    """The text of one kernel: its jit function, and what launches it."""

    anchor: Anchor
    name: str
    tiling: Tiling
    epilogue: TritonEpilogue | None
    kept: bool

    def text(self) -> str:
        """Both functions."""
        printer = WindowPrinter(self.anchor.windows, self.tiling, self.epilogue)
        body = printer.body(self.anchor.bias is not None, self.kept)
        letters = [a.upper() for a in self.anchor.windows.letters]
        known = [*self._tensors(), "images"]
        known += [f"{prefix}_{a}" for prefix in ("IN", "OUT") for a in letters]
        used = [name for name in known if _reads(body, name)]
        tiles = {
            "FILTERS": self.tiling.filters, "PLACES": self.tiling.places, "DEPTH": self.tiling.depth
        }  # fmt: skip
        tiles = {name: size for name, size in tiles.items() if _reads(body, name)}
        given = [f"{one}: tl.constexpr" if one.isupper() else one for one in used]
        given += [f"{one}: tl.constexpr" for one in tiles]
        head = call_lines(f"def {self.name}_kernel", given, ":")
        kernel = ["@triton.jit", *head, *indented(body), "", ""]
        arguments = [one.lower() if one.isupper() else one for one in used]
        arguments += [f"{one}={size}" for one, size in tiles.items()]
        arguments += [f"num_warps={self.tiling.warps}", f"num_stages={self.tiling.stages}"]
        return "\n".join([*kernel, *self._launcher(printer, arguments)]) + "\n"

    def _tensors(self) -> list[str]:
        """Parameters that are tensors, in the order of the kernel's reads and writes."""
        names = ["image", "weight", *(["bias"] if self.anchor.bias else [])]
        names += self.epilogue.operands if self.epilogue else ()
        names += ["result"] if self.kept else []
        return names + list(self.epilogue.results if self.epilogue else ())

    def _launcher(self, printer: WindowPrinter, arguments: list[str]) -> list[str]:
        w = self.anchor.windows
        sizes = ["images", *(f"{prefix}_{a}" for prefix in ("in", "out") for a in w.letters)]
        lines = [f'"""{self.anchor.note}."""']
        if printer.reordered:
            lines += _reordered(w)
        space = " * ".join(printer.steps(a).lower() for a in w.letters)
        lines.append(f"programs = triton.cdiv({space}, {self.tiling.places}) * images")
        if self.tiling.across:
            lines[-1] = f"programs = triton.cdiv(images * {space}, {self.tiling.places})"
        shared = printer.blocks_of_filters()
        grid = [f"programs * {shared}" if shared > 1 else "programs"]
        apart = w.groups * w.phases
        if apart > MOST_ACROSS:
            grid = [f"{grid[0]} * {apart}"]
        elif apart > 1:
            grid.append(str(apart))
        head = f"{self.name}_kernel[({', '.join(grid)}{',' if len(grid) == 1 else ''})]"
        lines += call_lines(head, arguments, "")
        return [*call_lines(f"def _{self.name}", [*self._tensors(), *sizes], ":"), *indented(lines)]


def _reordered(w: Windows) -> list[str]:
    """The weight as [filter, tap, channel]: made anew in each call, for it may have changed."""
    if not w.transposed:
        return ["weight = weight.detach().flatten(2).transpose(1, 2).contiguous()"]
    shape = f"{w.groups}, {w.channels}, {w.filters}, {w.taps}"
    return [
        f"weight = weight.detach().reshape({shape})",
        "weight = weight.permute(0, 2, 3, 1).contiguous()",
    ]


def _reads(lines: list[str], name: str) -> bool:
    return any(re.search(rf"(?<![\w.]){name}\b", line) for line in lines)
