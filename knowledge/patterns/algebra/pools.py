"""Means over cells of a grid from the means over a finer grid's cells."""

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, argument, operator, replace
from knowledge.patterns.algebra.rewrites import Rewritten, Unfit

# A finer mean in half precision would be rounded before it is averaged.
_EXACT = ("float32", "float64")


def mean_of_cells(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """An adaptive average from that of a finer grid over the same tensor, which is read once.

    All cells of both grids have to be of one size, and each of the finer inside one of the coarser.
    """
    cells = _cells(graph, node)
    if not cells:
        return None
    finer = [one for one in graph.calls if _refines(graph, one, node)]
    if not finer:
        return None
    if node.spec.dtype not in _EXACT:
        return Unfit(f"means of means in {node.spec.dtype} would be rounded twice")
    chosen = min(finer, key=lambda one: one.spec.numel)
    w, changed = Writer(graph), {}
    names = [one.name for one in graph.calls]
    source, made = Ref(ref=chosen.name), Ref(ref=node.name)
    if names.index(node.name) < names.index(chosen.name):
        changed[source] = w.call(chosen.target, chosen.args, chosen.spec.shape, chosen.spec.dtype)
        source = changed[source]
    changed[made] = w.call(node.target, (source, *node.args[1:]), node.spec.shape, node.spec.dtype)
    words = f"{node.name} averages the {chosen.spec.numel} means of a finer grid"
    return Rewritten(replace(graph, w, node.name, changed), words)


def _cells(graph: OpGraph, node: Node) -> tuple[int, ...]:
    """How many cells an adaptive average makes along each dimension; empty if of several sizes."""
    name, source = operator(node), argument(node, 0, "self")
    if not name.startswith("adaptive_avg_pool") or not isinstance(source, Ref) or node.kwargs:
        return ()
    dims = int(name[-2])
    sizes, cells = graph.spec_of(source).shape[-dims:], node.spec.shape[-dims:]
    even = all(size % cell == 0 for size, cell in zip(sizes, cells, strict=True) if cell)
    return cells if even and all(cells) else ()


def _refines(graph: OpGraph, finer: Node, node: Node) -> bool:
    if finer.target != node.target or finer.args[:1] != node.args[:1]:
        return False
    fine, coarse = _cells(graph, finer), _cells(graph, node)
    return bool(fine) and fine != coarse and all(
        many % few == 0 for many, few in zip(fine, coarse, strict=True)
    )  # fmt: skip
