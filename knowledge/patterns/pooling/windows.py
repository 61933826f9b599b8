"""What a pooling call does: its window, stride, padding and dilation, in three dimensions.

Pooling in one or two dimensions is pooling in three whose leading windows have one element.
"""

from dataclasses import dataclass
from typing import Any, Literal

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import argument, operator

Triple = tuple[int, int, int]
FLOATS = ("float32", "float64", "bfloat16", "float16")


@dataclass(frozen=True)
class Pool:
    """One pooling call: which tensor it reads, which value it makes, and its windows.

    `dims` is how many dimensions it pools; the triples belong to depth, height and width. An
    adaptive one has no window of its own: output i of n covers [i * size / n, (i + 1) * size / n),
    rounded outwards. `divisor` is 0 where the elements of a window are counted.
    """

    node: str
    source: Ref
    made: Ref
    kind: Literal["max", "avg"]
    dims: int
    dtype: str
    adaptive: bool = False
    window: Triple = (1, 1, 1)
    stride: Triple = (1, 1, 1)
    padding: Triple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)
    ceil: bool = False
    count_padding: bool = True
    divisor: int = 0

    @property
    def rows(self) -> int:
        """How many rows of the input lie in one window."""
        return self.window[0] * self.window[1]


_PLAIN = {f"{kind}_pool{n}d": (kind, n) for kind in ("max", "avg") for n in (1, 2, 3)}
_ADAPTIVE = {f"adaptive_{name}": found for name, found in _PLAIN.items()}
_INDEXED = {f"max_pool{n}d_with_indices": ("max", n) for n in (2, 3)}


def pool_of(graph: OpGraph, node: Node) -> Pool | str | None:
    """The pooling that a call does, why it can't be done here, or None for any other call."""
    name = operator(node)
    known = {**_PLAIN, **_ADAPTIVE, **_INDEXED}.get(name)
    if known is None or not isinstance(node.args[0], Ref):
        return None
    kind, dims = known
    several = isinstance(node.result, tuple)
    made = Ref(ref=node.name, index=0) if several else Ref(ref=node.name)
    if several and _reads(graph, Ref(ref=node.name, index=1)):
        return "the positions of the largest elements are needed too"
    spec = graph.spec_of(node.args[0])
    if spec.dtype not in FLOATS:
        return f"pooling of {spec.dtype}"
    if 0 in spec.shape or 0 in graph.spec_of(made).shape:
        return "there are no elements"
    start: dict[str, Any] = {
        "node": node.name, "source": node.args[0], "made": made, "kind": kind, "dims": dims,
        "dtype": spec.dtype,
    }  # fmt: skip
    if name in _ADAPTIVE:
        return Pool(**start, adaptive=True)
    return Pool(**start, **_windows(node, kind, dims))


def _windows(node: Node, kind: str, dims: int) -> dict[str, Any]:
    window = _triple(argument(node, 1, "kernel_size"), dims, 1)
    given = argument(node, 2, "stride", [])
    found = {
        "window": window,
        "stride": window if given in ([], None) else _triple(given, dims, 1),
        "padding": _triple(argument(node, 3, "padding", 0), dims, 0),
    }
    if kind == "max":
        found["dilation"] = _triple(argument(node, 4, "dilation", 1), dims, 1)
        return {**found, "ceil": bool(argument(node, 5, "ceil_mode", False))}
    return {
        **found,
        "ceil": bool(argument(node, 4, "ceil_mode", False)),
        "count_padding": bool(argument(node, 5, "count_include_pad", True)),
        "divisor": int(argument(node, 6, "divisor_override") or 0),
    }


def _triple(given: Any, dims: int, neutral: int) -> Triple:
    each = given if isinstance(given, list) else [given]
    each = each * dims if len(each) == 1 else each
    depth, height, width = [neutral] * (3 - dims) + [int(one) for one in each]
    return depth, height, width


def _reads(graph: OpGraph, ref: Ref) -> bool:
    """Whether anything needs a value."""
    return ref in graph.outputs or any(ref in node.refs for node in graph.nodes)


def output_size(pool: Pool, axis: int, size: str) -> str:
    """The pooled size along an axis, as Python over the input's size there.

    The formula is that of torch.nn.MaxPool2d's documentation. With ceil_mode, a window that would
    start in the padding on the far side is left out.
    """
    window, stride, padding = pool.window[axis], pool.stride[axis], pool.padding[axis]
    reach = pool.dilation[axis] * (window - 1) + 1
    if (window, stride, padding) == (1, 1, 0):
        return size
    over = 2 * padding - reach
    total = f"{size} + {over}" if over > 0 else f"{size} - {-over}" if over else size
    if not pool.ceil:
        return f"(({total}) // {stride} + 1)"
    starts = f"({size} + {padding - 1})" if padding > 1 else f"({size} - {1 - padding})"
    return f"(min(-(-({total}) // {stride}), {starts} // {stride}) + 1)"
