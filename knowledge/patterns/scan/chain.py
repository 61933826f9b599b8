"""Finds scans and what belongs to them: reversal, exclusion of the own element, a mask."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec
from knowledge.patterns.algebra.edit import argument, operator, producer, read_once

Operation = Literal["cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"]
OPERATIONS: tuple[Operation, ...] = ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
FLOATS = ("float32", "float64", "bfloat16", "float16")
NEUTRAL = {"cumsum": 0, "cumprod": 1}


@dataclass(frozen=True)
class Scan:
    """One scan along dimension `dim`, and the calls that go with it.

    `factors` are the tensors whose product is scanned: one, or two of the same shape. `made` is the
    value that results. A reversed scan starts at the end; an exclusive one leaves out the own
    element.
    """

    operation: Operation
    node: str
    dim: int
    factors: tuple[Ref, ...]
    made: Ref
    dtype: str
    nodes: tuple[str, ...]
    reverse: bool = False
    exclusive: bool = False


def scan_of(graph: OpGraph, node: Node) -> Scan | str | None:
    """The scan that a call does, why it can't be done here, or None for any other call."""
    name = next((one for one in OPERATIONS if one == operator(node)), None)
    if name is None or not isinstance(node.args[0], Ref):
        return None
    source = graph.spec_of(node.args[0])
    several = isinstance(node.result, tuple)
    made = Ref(ref=node.name, index=0) if several else Ref(ref=node.name)
    if several and any(Ref(ref=node.name, index=1) in n.refs for n in graph.nodes):
        return "the positions of the largest elements are needed too"
    if several and Ref(ref=node.name, index=1) in graph.outputs:
        return "the positions of the largest elements are needed too"
    if source.dtype not in FLOATS or graph.spec_of(made).dtype != source.dtype:
        return f"a scan of {source.dtype} to {graph.spec_of(made).dtype}"
    dim = argument(node, 1, "dim")
    if not source.shape or source.numel == 0 or not isinstance(dim, int):
        return "there is nothing to scan along"
    scan = Scan(
        operation=name, node=node.name, dim=dim % len(source.shape), factors=(node.args[0],),
        made=made, dtype=source.dtype, nodes=(node.name,),
    )  # fmt: skip
    return _masked(graph, _shifted(graph, _reversed(graph, scan)))


def _reversed(graph: OpGraph, scan: Scan) -> Scan:
    """Flip, scan, flip: one scan from the end."""
    before, after = producer(graph, scan.factors[0]), _reader(graph, scan.made)
    if not (_flips(before, scan.dim, graph) and _flips(after, scan.dim, graph)):
        return scan
    assert before is not None
    assert after is not None
    if not read_once(graph, scan.factors[0]) or not isinstance(before.args[0], Ref):
        return scan
    return replace(
        scan, factors=(before.args[0],), made=Ref(ref=after.name), reverse=True,
        nodes=(before.name, *scan.nodes, after.name),
    )  # fmt: skip


def _flips(node: Node | None, dim: int, graph: OpGraph) -> bool:
    if node is None or operator(node) != "flip":
        return False
    dims, rank = argument(node, 1, "dims"), len(graph.by_name[node.name].spec.shape)
    return isinstance(dims, list) and [one % rank for one in dims if isinstance(one, int)] == [dim]


def _reader(graph: OpGraph, ref: Ref) -> Node | None:
    """The only call that reads a value."""
    return graph.users[ref.ref][0] if read_once(graph, ref) else None


def _shifted(graph: OpGraph, scan: Scan) -> Scan:
    """A neutral element put before the scan, or before what is scanned, and the last left out."""
    if scan.operation not in NEUTRAL or scan.reverse:
        return scan
    joined = _reader(graph, scan.made)
    cut = _reader(graph, Ref(ref=joined.name)) if joined is not None else None
    if (
        joined is not None
        and cut is not None
        and (filler := _filled(graph, joined, scan, scan.made)) is not None
        and _cuts_last(graph, cut, scan.dim)
    ):
        return replace(
            scan, made=Ref(ref=cut.name), exclusive=True,
            nodes=(*scan.nodes, *filler, joined.name, cut.name),
        )  # fmt: skip
    return _shifted_before(graph, scan)


def _shifted_before(graph: OpGraph, scan: Scan) -> Scan:
    first = producer(graph, scan.factors[0])
    if first is None or not read_once(graph, scan.factors[0]):
        return scan
    cut_last = _cuts_last(graph, first, scan.dim)
    second = producer(graph, first.args[0]) if cut_last else first
    if second is None or operator(second) != "cat":
        return scan
    if cut_last and not read_once(graph, Ref(ref=second.name)):
        return scan
    rest = _second_part(second)
    filler = _filled(graph, second, scan, rest) if rest is not None else None
    if rest is None or filler is None:
        return scan
    nodes = [*filler, second.name, *([first.name] if cut_last else [])]
    if not cut_last:
        shorter = producer(graph, rest)
        if shorter is None or not _cuts_last(graph, shorter, scan.dim):
            return scan
        if not read_once(graph, rest) or not isinstance(shorter.args[0], Ref):
            return scan
        nodes, rest = [*nodes, shorter.name], shorter.args[0]
    if graph.spec_of(rest).shape != graph.spec_of(scan.made).shape:
        return scan
    if graph.spec_of(rest).dtype != scan.dtype:
        return scan
    return replace(scan, factors=(rest,), exclusive=True, nodes=(*nodes, *scan.nodes))


def _second_part(joined: Node) -> Ref | None:
    parts = joined.args[0] if joined.args else None
    if isinstance(parts, list) and len(parts) == 2 and isinstance(parts[1], Ref):
        return parts[1]
    return None


def _filled(graph: OpGraph, joined: Node, scan: Scan, rest: Ref) -> tuple[str, ...] | None:
    """The calls that fill one neutral element which is put before `rest`; None if it isn't so."""
    parts = joined.args[0] if joined.args else None
    if operator(joined) != "cat" or not isinstance(parts, list) or len(parts) != 2:
        return None
    dim = argument(joined, 1, "dim", 0)
    if parts[1] != rest or not isinstance(dim, int) or not isinstance(parts[0], Ref):
        return None
    spec = graph.spec_of(parts[0])
    if dim % len(spec.shape) != scan.dim or spec.shape[scan.dim] != 1:
        return None
    if spec.dtype != scan.dtype:
        return None
    filler = producer(graph, parts[0])
    word = {0: "zeros", 1: "ones"}[NEUTRAL[scan.operation]]
    if filler is None or operator(filler) not in (word, f"{word}_like", f"new_{word}"):
        return None
    return (filler.name,) if read_once(graph, parts[0]) else ()


def _cuts_last(graph: OpGraph, node: Node, dim: int) -> bool:
    """Whether a call takes all but the last element along a dimension."""
    if operator(node) != "slice" or not isinstance(node.args[0], Ref):
        return False
    spec: TensorSpec = graph.spec_of(node.args[0])
    given: Any = argument(node, 1, "dim", 0)
    start, end = argument(node, 2, "start"), argument(node, 3, "end")
    return (
        given % len(spec.shape) == dim
        and start in (None, 0)
        and end in (-1, spec.shape[dim] - 1)
        and argument(node, 4, "step", 1) == 1
    )


def _masked(graph: OpGraph, scan: Scan) -> Scan:
    """A product of two tensors of one shape is made on the way in."""
    node = producer(graph, scan.factors[0])
    if operator(node) != "mul" or node is None or len(node.args) != 2 or node.kwargs:
        return scan
    a, b = node.args
    if not isinstance(a, Ref) or not isinstance(b, Ref) or not read_once(graph, scan.factors[0]):
        return scan
    shape = node.spec.shape
    if graph.spec_of(a).shape != shape or graph.spec_of(b).shape != shape:
        return scan
    if {graph.spec_of(a).dtype, graph.spec_of(b).dtype} - {scan.dtype, "bool"} or a == b:
        return scan
    return replace(scan, factors=(a, b), nodes=(node.name, *scan.nodes))
