"""What rewrites of sums are made of: reading a reduction, and making the calls of its parts."""

from knowledge.opgraph import Argument, Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, argument, operator


def reduction_of(graph: OpGraph, node: Node) -> tuple[Ref, tuple[int, ...], bool] | None:
    """For a sum or mean: its argument, the dimensions it reduces, and whether they are kept."""
    if operator(node) not in ("sum", "mean") or not isinstance(node.args[0], Ref):
        return None
    source = node.args[0]
    rank = len(graph.spec_of(source).shape)
    dim = argument(node, 1, "dim")
    if isinstance(dim, str) or dim is None or dim == []:
        dims = tuple(range(rank))
    else:
        dims = tuple(sorted(one % rank for one in (dim if isinstance(dim, list) else [dim])))
    return source, dims, bool(argument(node, 2, "keepdim", False))


def same_dtype(graph: OpGraph, *refs: Ref) -> bool:
    """Whether all these values have one type."""
    return len({graph.spec_of(ref).dtype for ref in refs}) == 1


def sum_over(w: Writer, ref: Ref, dims: list[int], keep: bool) -> Ref:
    """The sum over some dimensions; the value itself if there are none."""
    spec = w.spec(ref)
    if not dims:
        return ref
    rank = len(spec.shape)
    gone = {dim % rank for dim in dims}
    shape = [1 if d in gone else n for d, n in enumerate(spec.shape) if keep or d not in gone]
    args: tuple[Argument, ...] = (ref, [*sorted(gone)], keep)
    return w.call("aten.sum.dim_IntList", args, shape, spec.dtype)


def scaled(w: Writer, ref: Ref, factor: float) -> Ref:
    """A value times a number, unless that is 1."""
    if factor == 1:
        return ref
    spec = w.spec(ref)
    return w.call("aten.mul.Tensor", (ref, factor), spec.shape, spec.dtype)


def shaped(w: Writer, ref: Ref, shape: tuple[int, ...]) -> Ref:
    """A view of another shape, unless it has that shape already."""
    spec = w.spec(ref)
    if spec.shape == shape:
        return ref
    return w.call("aten.view.default", (ref, list(shape)), shape, spec.dtype)


def plus(w: Writer, ref: Ref, other: Ref) -> Ref:
    """The sum of two values; the second broadcasts to the first."""
    spec = w.spec(ref)
    return w.call("aten.add.Tensor", (ref, other), spec.shape, spec.dtype)
