"""Loops over time as people write them, in the form in which a scan takes them over.

Results assigned part by part become parts laid side by side, and what each step works out for
itself, apart from the state, becomes part of what one call works out for all of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from knowledge.opgraph import Atom, Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, argument, operator, producer, replace
from knowledge.patterns.algebra.parts import common_source, gathering_of, run_of, selected
from knowledge.patterns.algebra.recursions import recursion_of
from knowledge.patterns.algebra.rewrites import Rewritten, Unfit
from knowledge.patterns.algebra.stacks import LEAST, is_made_of_parts


@dataclass(frozen=True)
class _Assignment:
    """A tensor with what lies at one index along `dim` replaced."""

    before: Ref
    dim: int
    at: int
    value: Ref


def parts_assigned(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """A tensor of which every part was assigned, one by one, is the parts side by side."""
    last = _assignment(graph, Ref(ref=node.name))
    if last is None or _goes_on(graph, node, last.dim):
        return None
    size = node.spec.shape[last.dim]
    values: dict[int, Ref] = {}
    step: _Assignment | None = last
    while step is not None and step.dim == last.dim and len(values) < size:
        values.setdefault(step.at, step.value)
        step = _assignment(graph, step.before)
    specs = {(graph.spec_of(one).shape, graph.spec_of(one).dtype) for one in values.values()}
    shape = (*node.spec.shape[: last.dim], *node.spec.shape[last.dim + 1 :])
    if len(values) < size or size < LEAST or specs != {(shape, node.spec.dtype)}:
        return None
    w = Writer(graph)
    ref = w.stacked([values[at] for at in range(size)], last.dim)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): ref})
    return Rewritten(changed, "parts assigned one by one are laid side by side")


def _goes_on(graph: OpGraph, node: Node, dim: int) -> bool:
    """Whether the next part is assigned to the result, so that a later call has them all."""
    later = (_assignment(graph, Ref(ref=user.name)) for user in graph.users[node.name])
    return any(one is not None and one.dim == dim and one.before.ref == node.name for one in later)


def _assignment(graph: OpGraph, ref: Ref) -> _Assignment | None:
    """What is assigned to one index of a tensor, maybe by way of a slice that is all of it."""
    node = producer(graph, ref)
    if operator(node) == "slice_scatter" and node is not None:
        run, inside = _written_run(graph, node), producer(graph, node.args[1])
        source = producer(graph, inside.args[0]) if inside is not None and inside.args else None
        if run != (0, node.spec.shape[int(argument(node, 2, "dim", 0))]) or source is None:
            return None
        before = run_of(graph, Ref(ref=source.name))
        if operator(inside) != "select_scatter" or before is None or before.source != node.args[0]:
            return None
        base, node = before.source, inside
    elif operator(node) == "select_scatter" and node is not None and isinstance(node.args[0], Ref):
        base = node.args[0]
    else:
        return None
    assert node is not None
    rank = len(node.spec.shape)
    dim, at, value = int(str(node.args[2])) % rank, int(str(node.args[3])), node.args[1]
    if not isinstance(value, Ref):
        return None
    return _Assignment(base, dim, at % node.spec.shape[dim], _copied(graph, value))


def _written_run(graph: OpGraph, node: Node) -> tuple[int, int] | None:
    size = node.spec.shape[int(argument(node, 2, "dim", 0))]
    begin, end = argument(node, 3, "start"), argument(node, 4, "end")
    if argument(node, 5, "step", 1) != 1:
        return None
    return (begin or 0, size if end is None else min(end, size))


def _copied(graph: OpGraph, ref: Ref) -> Ref:
    """What a value is a copy of, in the same shape and type."""
    node = producer(graph, ref)
    if operator(node) != "copy" or node is None or not isinstance(node.args[1], Ref):
        return ref
    given, made = graph.spec_of(node.args[1]), node.spec
    return node.args[1] if (given.shape, given.dtype) == (made.shape, made.dtype) else ref


def steps_at_once(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """The factors and addends that a linear loop works out step by step, worked out at once.

    Not where they follow from the loop's own state.
    """
    found = recursion_of(graph, node)
    if found is None:
        return None
    for name in ("factor", "addend"):
        refs = [getattr(step, name).ref for step in found.steps]
        if None in refs or len(set(refs)) < len(refs) or common_source(graph, refs) is not None:
            continue
        if not is_made_of_parts(graph, refs) or _follow(graph, refs, found.values):
            continue
        w = Writer(graph)
        whole = w.stacked(refs, 0)
        changed = {ref: selected(w, whole, 0, at) for at, ref in enumerate(refs)}
        # Before the first that reads one of them: what waits for them all then comes after them.
        readers = (user.name for ref in refs for user in graph.users[ref.ref])
        place = min(readers, key=graph.position.__getitem__)
        words = f"the {name}s of {len(refs)} steps are made at once"
        return Rewritten(replace(graph, w, place, changed), words)
    return None


def odd_end(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """Values side by side of which the first or the last is made otherwise: the others apart.

    A loop over time reads something else at its end: zeros in place of what would come next.
    """
    found = gathering_of(graph, node.name) if operator(node) in ("stack", "cat") else None
    if found is None or found.flat or len(found.refs) <= LEAST:
        return None
    if is_made_of_parts(graph, found.refs):
        return None
    for odd, others in ((0, found.refs[1:]), (len(found.refs) - 1, found.refs[:-1])):
        if not is_made_of_parts(graph, others):
            continue
        w = Writer(graph)
        spec, dim = graph.spec_of(found.refs[odd]), found.dim
        shape = (*spec.shape[:dim], 1, *spec.shape[dim:])
        alone = w.call("aten.unsqueeze.default", (found.refs[odd], dim), shape, spec.dtype)
        rest = w.stacked(others, dim)
        pieces: list[Atom | list[Atom]] = [rest, alone] if odd else [alone, rest]
        ref = w.call("aten.cat.default", (pieces, dim), node.spec.shape, spec.dtype)
        changed = replace(graph, w, node.name, {Ref(ref=node.name): ref})
        return Rewritten(changed, "all but one of some parts are laid side by side apart")
    return None


def _follow(graph: OpGraph, refs: Iterable[Ref], values: Iterable[Ref]) -> bool:
    """Whether some of `refs` are made of some of `values`."""
    wanted, seen = {ref.ref for ref in refs}, set[str]()
    waiting = [ref.ref for ref in values]
    while waiting:
        for user in graph.users[waiting.pop()]:
            if user.name in wanted:
                return True
            if user.name not in seen:
                seen.add(user.name)
                waiting.append(user.name)
    return False
