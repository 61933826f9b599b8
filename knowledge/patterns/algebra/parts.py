"""Parts of tensors along one dimension: which index a value is, and how such values come together.

A loop over time reads its input part by part, and lays what it makes side by side again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from knowledge.opgraph import OpGraph, Ref, TensorSpec
from knowledge.patterns.algebra.edit import Writer, argument, operator, producer

_SPLITS = ("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk")
_DROPPING = ("squeeze", "view", "reshape", "_unsafe_view", "flatten")
_ADDING = ("unsqueeze", "view", "reshape", "_unsafe_view")


@dataclass(frozen=True)
class Part:
    """What lies at one index of a tensor along `dim`, a dimension which the part does not have."""

    source: Ref
    dim: int
    at: int


@dataclass(frozen=True)
class Run:
    """What lies at the indices [begin, end) of a tensor along `dim`."""

    source: Ref
    dim: int
    begin: int
    end: int


def run_of(graph: OpGraph, ref: Ref) -> Run | None:
    """The run of neighbours that a value is, by a slice or a split."""
    node = producer(graph, ref)
    name, source = operator(node), node.args[0] if node is not None and node.args else None
    if node is None or not isinstance(source, Ref):
        return None
    shape = graph.spec_of(source).shape
    if not shape:
        return None
    if name == "slice" and argument(node, 4, "step", 1) == 1:
        dim = int(argument(node, 1, "dim", 0)) % len(shape)
        begin = _bounded(argument(node, 2, "start"), 0, shape[dim])
        end = _bounded(argument(node, 3, "end"), shape[dim], shape[dim])
        return Run(source, dim, begin, max(begin, end))
    if name == "narrow":
        dim, begin, length = (int(str(number)) for number in node.args[1:4])
        begin = _bounded(begin, 0, shape[dim])
        return Run(source, dim % len(shape), begin, begin + length)
    if name in _SPLITS and isinstance(node.result, tuple) and ref.index is not None:
        dim = int(argument(node, 2, "dim", 0)) % len(shape)
        sizes = [spec.shape[dim] for spec in node.result if spec is not None]
        begin = sum(sizes[: ref.index])
        return Run(source, dim, begin, begin + sizes[ref.index])
    return None


def _bounded(given: Any, default: int, size: int) -> int:
    place = default if given is None else int(given)
    return min(max(place + size if place < 0 else place, 0), size)


def whole_of(graph: OpGraph, ref: Ref) -> Ref:
    """A value, or the tensor of which a slice takes everything."""
    while (run := run_of(graph, ref)) is not None:
        if (run.begin, run.end) != (0, graph.spec_of(run.source).shape[run.dim]):
            break
        ref = run.source
    return ref


def part_of(graph: OpGraph, ref: Ref) -> Part | None:
    """The part of a tensor that a value is."""
    node = producer(graph, ref)
    name, source = operator(node), node.args[0] if node is not None and node.args else None
    if node is None or not isinstance(source, Ref):
        return None
    if name == "select":
        shape = graph.spec_of(source).shape
        dim = int(str(node.args[1])) % len(shape)
        return Part(whole_of(graph, source), dim, int(str(node.args[2])) % shape[dim])
    if name == "unbind" and ref.index is not None:
        dim = int(argument(node, 1, "dim", 0)) % len(graph.spec_of(source).shape)
        return Part(whole_of(graph, source), dim, ref.index)
    run = run_of(graph, source) if name in _DROPPING else None
    if run is None or run.end - run.begin != 1:
        return None
    shape = graph.spec_of(run.source).shape
    if node.spec.shape != (*shape[: run.dim], *shape[run.dim + 1 :]):
        return None
    return Part(whole_of(graph, run.source), run.dim, run.begin)


@dataclass(frozen=True)
class Gathering:
    """Values of one shape laid side by side along a new dimension `dim` of the result.

    With `flat`, that dimension and the one after it are one: values joined along `dim`.
    """

    refs: tuple[Ref, ...]
    dim: int
    flat: bool = False


def gathering_of(graph: OpGraph, name: str) -> Gathering | None:
    """What a call of `stack` or `cat` lays side by side, where that is of one shape and type."""
    node = graph.by_name[name]
    kind, given = operator(node), node.args[0] if node.args else None
    if kind not in ("stack", "cat") or not isinstance(given, list) or len(given) < 2:
        return None
    refs = tuple(one for one in given if isinstance(one, Ref))
    specs = {(graph.spec_of(ref).shape, graph.spec_of(ref).dtype) for ref in refs}
    if len(refs) != len(given) or len(specs) != 1 or node.spec.dtype != specs.pop()[1]:
        return None
    dim = int(argument(node, 1, "dim", 0)) % len(node.spec.shape)
    if kind == "stack":
        return Gathering(refs, dim)
    inner = [_without_dim(graph, ref, dim) for ref in refs]
    found = tuple(ref for ref in inner if ref is not None)
    if len(found) == len(refs):
        return Gathering(found, dim)
    return Gathering(refs, dim, flat=True)


def _without_dim(graph: OpGraph, ref: Ref, dim: int) -> Ref | None:
    """What a value was before it was given dimension `dim`, of size 1."""
    node = producer(graph, ref)
    source = node.args[0] if node is not None and node.args else None
    if node is None or operator(node) not in _ADDING or not isinstance(source, Ref):
        return None
    shape = node.spec.shape
    fits = shape[dim] == 1 and graph.spec_of(source).shape == (*shape[:dim], *shape[dim + 1 :])
    return source if fits else None


Source = Ref | Part


def source_of(graph: OpGraph, ref: Ref) -> Source:
    """A value as the part of a tensor that it is, where it is one."""
    return part_of(graph, ref) or ref


def common_source(graph: OpGraph, values: Sequence[Source]) -> tuple[Part, bool] | None:
    """The first of neighbouring parts of one tensor, in the tensor's order or `backwards`."""
    parts = [one if isinstance(one, Part) else part_of(graph, one) for one in values]
    first = parts[0]
    if first is None:
        return None
    second = parts[1] if len(parts) > 1 else None
    step = -1 if second is not None and second.at < first.at else 1
    wanted = (Part(first.source, first.dim, first.at + step * n) for n in range(len(parts)))
    return (first, step < 0) if all(a == b for a, b in zip(parts, wanted, strict=True)) else None


def gathered(w: Writer, values: Sequence[Source]) -> tuple[Ref, int]:
    """A tensor that holds these values in their order, and the dimension along which it does.

    It is the tensor whose parts they are, or a run of it, if need be flipped; else they are laid on
    one another.
    """
    found = common_source(w.graph, values)
    if found is None:
        return w.stacked([_written(w, one) for one in values], 0), 0
    first, backwards = found
    begin = first.at - len(values) + 1 if backwards else first.at
    dim = first.dim
    ref = w.sliced(first.source, dim, begin, begin + len(values))
    if backwards:
        spec = w.spec(ref)
        ref = w.call("aten.flip.default", (ref, [dim]), spec.shape, spec.dtype)
    return ref, dim


def _written(w: Writer, value: Source) -> Ref:
    return value if isinstance(value, Ref) else selected(w, value.source, value.dim, value.at)


def selected(w: Writer, ref: Ref, dim: int, at: int) -> Ref:
    """The part of a tensor at one index."""
    spec = w.spec(ref)
    shape = (*spec.shape[:dim], *spec.shape[dim + 1 :])
    return w.call("aten.select.int", (ref, dim, at), shape, spec.dtype)


def moved(w: Writer, ref: Ref, dim: int, to: int) -> Ref:
    """A view in which one dimension stands elsewhere, the others as they were."""
    order = [one for one in range(len(w.spec(ref).shape)) if one != dim]
    return w.permuted(ref, [*order[:to], dim, *order[to:]])


def joined(w: Writer, ref: Ref, spec: TensorSpec) -> Ref:
    """A view of another shape, unless it has that already; copied where it can't be viewed so."""
    if w.spec(ref).shape == spec.shape:
        return ref
    return w.call("aten.reshape.default", (ref, list(spec.shape)), spec.shape, spec.dtype)
