"""A convolution's window, as a call of the graph gives it: sizes that are compiled in."""

from dataclasses import dataclass
from typing import Any

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.program import variable

_RANKS = {"aten.conv1d": 1, "aten.conv2d": 2, "aten.conv3d": 3}
_AXES = "DHW"


@dataclass(frozen=True)
class Window:
    """One convolution; every tuple has an entry for each of its `rank` spatial dimensions.

    `before` and `after` are zeros padded on either side. `channels` and `filters` are those of one
    group: the weight has shape (groups * filters, channels, *kernel).
    """

    rank: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    channels: int
    filters: int

    @property
    def taps(self) -> int:
        """Elements of the window in one channel."""
        product = 1
        for size in self.kernel:
            product *= size
        return product

    @property
    def depthwise(self) -> bool:
        """Whether every channel is filtered on its own, with a window short enough to unroll."""
        height, dilation = (self.kernel[-2], self.dilation[-2]) if self.rank > 1 else (1, 1)
        small = self.kernel[-1] * height <= 49 and (height - 1) * dilation <= 56
        return self.channels == 1 and self.groups > 1 and self.filters <= 2 and small

    @property
    def pointwise(self) -> bool:
        """Whether it is a matrix product of filters and pixels, with no window at all."""
        return self.taps == 1 and set(self.stride) == {1} and not any(self.before + self.after)

    def constants(self) -> str:
        """The C++ constants that `WINDOWS_CPP` is compiled with; missing dimensions have size 1."""
        rows = [("K", self.kernel, 1), ("S", self.stride, 1), ("P", self.before, 0)]
        rows += [("AFTER_", self.after, 0), ("D", self.dilation, 1)]
        lines = []
        for letter, values, missing in rows:
            full = (missing,) * (3 - self.rank) + values
            named = (f"{letter}{axis} = {value}" for axis, value in zip(_AXES, full, strict=True))
            lines.append(f"constexpr int64_t {', '.join(named)};")
        lines.append(
            f"constexpr int64_t GROUPS = {self.groups}, CHANNELS = {self.channels}, "
            f"FILTERS = {self.filters};"
        )
        padded = "true" if any(self.before + self.after) else "false"
        return "\n".join([*lines, f"constexpr bool PADDED = {padded};"])

    def output_sizes(self, image: str) -> tuple[str, ...]:
        """Python expressions for the result's spatial sizes, from the variable of the input."""
        return tuple(
            _shifted(f"{image}.shape[{axis + 2}]", self._reach(axis), self.stride[axis])
            for axis in range(self.rank)
        )

    def fits(self, image: str) -> str:
        """A Python expression that is true where every window fits into the padded image."""
        parts = (
            f"{image}.shape[{axis + 2}] > {max(0, -self._reach(axis) - 1)}"
            for axis in range(self.rank)
        )
        return f"({' and '.join(parts)})"

    def _reach(self, axis: int) -> int:
        """What is added to a size before it is divided by the stride."""
        span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return self.before[axis] + self.after[axis] - span


def _shifted(size: str, reach: int, stride: int) -> str:
    if stride == 1:
        return size if reach == -1 else f"({size} {'+' if reach > -1 else '-'} {abs(reach + 1)})"
    inner = size if reach == 0 else f"({size} {'+' if reach > 0 else '-'} {abs(reach)})"
    return f"({inner} // {stride} + 1)"


@dataclass(frozen=True)
class Call:
    """A convolution in a graph: its node, its operands and its window."""

    name: str
    image: Ref
    weight: Ref
    bias: Ref | None
    window: Window

    def result_shape(self) -> tuple[str, ...]:
        """Python expressions for the sizes of its result."""
        image = variable(self.image)
        filters = str(self.window.groups * self.window.filters)
        return (f"{image}.shape[0]", filters, *self.window.output_sizes(image))


def is_convolution(node: Node) -> bool:
    """Whether a node is a convolution of any kind that is not transposed."""
    return node.target.rpartition(".")[0] in _RANKS


def read_call(graph: OpGraph, node: Node, dtypes: tuple[str, ...] = ("float32",)) -> Call | str:
    """The convolution that a node calls, or a sentence on why it stays with the library.

    Its tensors must be of one of these types, all of them.
    """
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    image, weight, bias = given["input"], given["weight"], given.get("bias")
    assert isinstance(image, Ref)
    assert isinstance(weight, Ref)
    rank = _RANKS[node.target.rpartition(".")[0]]
    refs = (image, weight, *((bias,) if isinstance(bias, Ref) else ()))
    found = {graph.spec_of(ref).dtype for ref in refs}
    if len(found) > 1 or not found <= set(dtypes):
        return f"{node.name} is not in {' or '.join(dtypes)}"
    shape, of = graph.spec_of(image).shape, graph.spec_of(weight).shape
    if len(shape) != rank + 2:
        return f"{node.name} has no batch dimension"
    if not graph.spec_of(image).contiguous:
        return f"{node.name} reads an image that is not in row-major order"
    if 0 in (*shape, *of, *node.spec.shape):
        return f"{node.name} is empty"
    stride, dilation = (_tuple(given.get(name, 1), rank) for name in ("stride", "dilation"))
    before, after = _padding(given.get("padding", 0), of[2:], dilation)
    groups = given.get("groups", 1)
    assert isinstance(groups, int)
    window = Window(
        rank, of[2:], stride, before, after, dilation, groups, of[1], of[0] // groups
    )  # fmt: skip
    return Call(node.name, image, weight, bias if isinstance(bias, Ref) else None, window)


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(values * rank if len(values) == 1 else values)


def _padding(
    value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before and after; "same" puts the odd one after, as PyTorch does."""
    if value == "valid":
        value = 0
    if value == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    both = _tuple(value, len(kernel))
    return both, both
