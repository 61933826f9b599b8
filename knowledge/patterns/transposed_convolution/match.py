"""Reads a call of `conv_transpose1d/2d/3d`: what it is given, and why it can't be taken."""

from dataclasses import dataclass
from math import prod

from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec
from knowledge.patterns.transposed_convolution.phases import Axis
from knowledge.program import Program, variable

TARGETS = {
    "aten.conv_transpose1d.default": 1,
    "aten.conv_transpose2d.input": 2,
    "aten.conv_transpose3d.input": 3,
}
_UNIT = Axis(window=1, stride=1, padding=0, dilation=1, extra=0, size=1)


@dataclass(frozen=True)
class Transposed:
    """One call. `axes` are always three: a plane's are (height, 1, width), a line's (1, 1, length).

    So the outermost axis is the one along which an image is cut into slabs.
    """

    node: Node
    x: Ref
    weight: Ref
    bias: Ref | None
    groups: int
    rank: int
    axes: tuple[Axis, Axis, Axis]
    batch: int
    in_channels: int
    out_channels: int

    @property
    def flops(self) -> int:
        """Multiply-adds, as two each, at the traced sizes; those cut off by padding included."""
        positions = self.batch * prod(axis.size for axis in self.axes)
        window = prod(axis.window for axis in self.axes)
        return 2 * positions * self.in_channels * (self.out_channels // self.groups) * window

    def output_sizes(self) -> list[str]:
        """The result's sizes as Python expressions over the argument's."""
        x = variable(self.x)
        grown = []
        for number, axis in enumerate(self.spatial()):
            edge = axis.dilation * (axis.window - 1) + axis.extra + 1 - 2 * axis.padding
            size = f"({x}.shape[{number + 2}] - 1)"
            size = f"{size} * {axis.stride}" if axis.stride > 1 else size
            grown.append(f"({size} {'-' if edge < 0 else '+'} {abs(edge)})")
        channels = f"{variable(self.weight)}.shape[1]"
        channels = f"({channels} * {self.groups})" if self.groups > 1 else channels
        return [f"{x}.shape[0]", channels, *grown]

    def input_sizes(self) -> list[str]:
        """The three spatial sizes of the argument, outermost first, as Python expressions."""
        x = variable(self.x)
        return {
            1: ["1", "1", f"{x}.shape[2]"],
            2: [f"{x}.shape[2]", "1", f"{x}.shape[3]"],
            3: [f"{x}.shape[2]", f"{x}.shape[3]", f"{x}.shape[4]"],
        }[self.rank]

    def spatial(self) -> list[Axis]:
        """The axes that the call has, outermost first."""
        return {1: [self.axes[2]], 2: [self.axes[0], self.axes[2]], 3: list(self.axes)}[self.rank]


def find(
    program: Program,
    only: frozenset[str] = frozenset(),
    dtypes: tuple[str, ...] = ("float32",),
) -> tuple[list[Transposed], dict[str, str]]:
    """The calls that can be taken, and for each other transposed convolution why it is left."""
    taken: list[Transposed] = []
    reasons: dict[str, str] = {}
    for node in program.graph.calls:
        if node.target not in TARGETS or node.name in program.kernel_of:
            continue
        if only and node.name not in only:
            continue
        found = read(program.graph, node, dtypes)
        if isinstance(found, Transposed):
            taken.append(found)
        else:
            reasons[node.name] = found
    return taken, reasons


def read(graph: OpGraph, node: Node, dtypes: tuple[str, ...] = ("float32",)) -> Transposed | str:
    """A call's arguments, or one sentence on why the library keeps it."""
    rank = TARGETS[node.target]
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    if not isinstance(x, Ref) or not isinstance(weight, Ref):
        return "an operand is not a tensor"
    specs = [graph.spec_of(x), graph.spec_of(weight), node.spec]
    types = {spec.dtype for spec in specs}
    if len(types) > 1 or not types <= set(dtypes):
        return f"the register tile multiplies {' or '.join(dtypes)}, not {specs[0].dtype}"
    if len(specs[0].shape) != rank + 2:
        return "the image has no batch dimension"
    groups = given.get("groups", 1)
    lists = [
        _each(given.get(name, default), rank)
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0))
    ]
    if not isinstance(groups, int) or any(one is None for one in lists):
        return "its stride or padding is not a constant"
    return Transposed(
        node=node, x=x, weight=weight, bias=bias if isinstance(bias, Ref) else None,
        groups=groups, rank=rank, axes=_axes(specs, [one or [] for one in lists]),
        batch=specs[0].shape[0], in_channels=specs[0].shape[1],
        out_channels=specs[1].shape[1] * groups,
    )  # fmt: skip


def _each(value: object, rank: int) -> list[int] | None:
    """A number for each spatial dimension; one number stands for all."""
    numbers = list(value) if isinstance(value, list) else [value]
    if not all(isinstance(one, int) for one in numbers):
        return None
    return [int(str(one)) for one in numbers] * (rank if len(numbers) == 1 else 1)


def _axes(specs: list[TensorSpec], lists: list[list[int]]) -> tuple[Axis, Axis, Axis]:
    sizes, windows = specs[0].shape[2:], specs[1].shape[2:]
    axes = [
        Axis(window=w, stride=s, padding=p, dilation=d, extra=e, size=n)
        for w, s, p, d, e, n in zip(windows, *lists, sizes, strict=True)
    ]
    if len(axes) == 1:
        return _UNIT, _UNIT, axes[0]
    return (axes[0], _UNIT, axes[1]) if len(axes) == 2 else (axes[0], axes[1], axes[2])
