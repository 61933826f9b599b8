"""Finds what reduces over dimensions around its columns: batch norm in training, column sums."""

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from knowledge.loops.cost import specs_of
from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, argument, dense, operator, producer, replace

FLOATS = ("float32", "float64")
STATISTICS = "kernelwright.batch_statistics.default"
# Sums of long narrow matrices: loops would do each strip of columns on one thread.
NARROW, LONG = 1024, 4096

Kind = Literal["sum", "mean", "var", "std", "var_mean", "std_mean"]


@dataclass(frozen=True)
class Statistics:
    """A reduction of `source`, seen as outer x columns x inner, to one number a column.

    Dimensions [first, last) are the columns; what is reduced lies on both sides or before them.
    """

    node: str
    source: Ref
    first: int
    last: int
    kind: Kind
    correction: float = 0.0


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm that uses, and maybe keeps, the statistics of its batch."""

    node: str
    source: Ref
    weight: Ref | None
    bias: Ref | None
    running: tuple[Ref, Ref] | None
    momentum: float
    epsilon: float


def batch_norm_of(graph: OpGraph, node: Node) -> BatchNorm | str | None:
    """The training batch norm that a call is, why it can't be done, or None for other calls."""
    name = operator(node)
    if name not in ("_native_batch_norm_legit_functional", "_native_batch_norm_legit"):
        return None
    functional = name.endswith("functional")
    if not functional and not node.target.endswith("no_stats"):
        return "a batch norm that changes its statistics in place"
    args = node.args if functional else (*node.args[:3], None, None, *node.args[3:])
    x, weight, bias, mean, variance, training, momentum, epsilon = args
    if not training:
        return "a batch norm with fixed statistics is pointwise work"
    assert isinstance(x, Ref)
    given = [one for one in (weight, bias, mean, variance) if isinstance(one, Ref)]
    types = {graph.spec_of(ref).dtype for ref in (x, *given)}
    if len(types) > 1 or not types <= set(FLOATS):
        return f"a batch norm of {', '.join(sorted(types))}"
    if graph.spec_of(x).numel == 0:
        return "there are no elements"
    saved = {Ref(ref=node.name, index=1), Ref(ref=node.name, index=2)}
    if any(saved & set(one.refs) for one in graph.nodes) or saved & set(graph.outputs):
        return "the saved statistics are read as well"
    return BatchNorm(
        node=node.name,
        source=x,
        weight=weight if isinstance(weight, Ref) else None,
        bias=bias if isinstance(bias, Ref) else None,
        running=(mean, variance) if isinstance(mean, Ref) and isinstance(variance, Ref) else None,
        momentum=_number(momentum),
        epsilon=_number(epsilon),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def statistics(
    graph: OpGraph, norm: BatchNorm, name: str, source: Ref, shape: tuple[int, ...]
) -> Node:
    """The call that gathers a batch norm's statistics from `source`.

    Its results are the mean and the scale, of `shape`, which broadcasts, then the bias where there
    is one, and the new running mean and variance.
    """
    refs = (norm.weight, norm.bias, *(norm.running or ()))
    one = dense(shape, graph.spec_of(norm.source).dtype)
    bias = (one,) if norm.bias is not None else ()
    running = tuple(graph.spec_of(ref) for ref in norm.running or ())
    return Node(
        name=name, kind="call", target=STATISTICS,
        args=(source, *(ref for ref in refs if ref is not None)),
        result=(one, one, *bias, *running),
    )  # fmt: skip


def split(graph: OpGraph, norm: BatchNorm) -> tuple[OpGraph, str]:
    """The graph with a batch norm as its statistics and pointwise calls; the statistics' name."""
    spec = graph.spec_of(norm.source)
    shape = (1, spec.shape[1], *([1] * (len(spec.shape) - 2)))
    w = Writer(graph)
    gathered = statistics(graph, norm, norm.node, norm.source, shape)
    name = w.several(STATISTICS, gathered.args, specs_of(gathered))[0].ref
    y = w.call("aten.sub.Tensor", (norm.source, Ref(ref=name, index=0)), spec.shape, spec.dtype)
    y = w.call("aten.mul.Tensor", (y, Ref(ref=name, index=1)), spec.shape, spec.dtype)
    if norm.bias is not None:
        y = w.call("aten.add.Tensor", (y, Ref(ref=name, index=2)), spec.shape, spec.dtype)
    changed = {Ref(ref=norm.node, index=0): y}
    if norm.running is not None:
        first = 2 + (norm.bias is not None)
        for old, new in ((3, first), (4, first + 1)):
            changed[Ref(ref=norm.node, index=old)] = Ref(ref=name, index=new)
    return replace(graph, w, norm.node, changed), name


def statistics_of(graph: OpGraph, node: Node) -> Statistics | str | None:
    """The reduction over dimensions around columns that a call is, or why it isn't one."""
    name = operator(node)
    kinds: tuple[Kind, ...] = ("sum", "mean", "var", "std", "var_mean", "std_mean")
    kind = next((one for one in kinds if one == name), None)
    if kind is None or not isinstance(node.args[0], Ref):
        return None
    source = graph.spec_of(node.args[0])
    dim = argument(node, 1, "dim")
    if source.dtype not in FLOATS or not isinstance(dim, list) or not dim or not source.numel:
        return None
    made = node.result if isinstance(node.result, tuple) else (node.result,)
    if any(one is not None and one.dtype != source.dtype for one in made):
        return None
    rank = len(source.shape)
    reduced = {one % rank for one in dim if isinstance(one, int)}
    kept = [at for at in range(rank) if at not in reduced and source.shape[at] != 1]
    if not kept or set(range(kept[0], kept[-1] + 1)) & reduced:
        return None
    first, last = kept[0], kept[-1] + 1
    outer, inner = prod(source.shape[:first]), prod(source.shape[last:])
    columns = prod(source.shape[first:last])
    narrow = columns <= NARROW and outer >= LONG and producer(graph, node.args[0]) is None
    if outer == 1 or (inner == 1 and not narrow):
        return "loops reduce it as well"
    if inner > 1 and kind in ("sum", "mean"):
        return "the library sums around columns at the speed of memory"
    return Statistics(node.name, node.args[0], first, last, kind, _correction(node))


def _correction(node: Node) -> float:
    given = node.kwargs.get("correction")
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    return 0.0 if argument(node, 2, "unbiased", True) is False else 1.0
