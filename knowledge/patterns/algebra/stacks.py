"""Values laid side by side that are all parts of a tensor, or what one call makes of such parts.

So that what was done step by step is done to the whole sequence at once.
"""

from collections.abc import Sequence
from typing import Any

from knowledge.opgraph import Argument, Node, OpGraph, Ref, TensorSpec
from knowledge.patterns.algebra.edit import Writer, operator, producer, read_once, replace
from knowledge.patterns.algebra.parts import (
    Gathering,
    common_source,
    gathered,
    gathering_of,
    joined,
    moved,
)
from knowledge.patterns.algebra.rewrites import Rewritten, Unfit

# Fewer values are as quick in a loop that makes each of them in its place.
LEAST = 4
DEEPEST = 8
_POINTWISE = {
    "add", "sub", "mul", "div", "rsub", "maximum", "minimum", "neg", "abs", "exp", "log", "sqrt",
    "rsqrt", "square", "reciprocal", "sin", "cos", "tanh", "sigmoid", "relu", "gelu", "silu",
    "softplus", "leaky_relu", "elu", "selu", "mish", "hardswish", "hardtanh", "clamp", "erf",
    "where", "pow",
}  # fmt: skip
_PRODUCTS = {"linear", "matmul", "mm", "bmm"}
_REDUCTIONS = {"sum", "mean", "amax", "amin", "softmax", "log_softmax"}


def stack_of_parts(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """All parts of a tensor side by side are the tensor, its dimensions maybe in another order."""
    found = _gathering(graph, node)
    if found is None or common_source(graph, found.refs) is None:
        return None
    w = Writer(graph)
    ref, dim = gathered(w, found.refs)
    ref = joined(w, moved(w, ref, dim, found.dim), node.spec)
    given = ref.ref in graph.by_name and graph.by_name[ref.ref].kind != "call"
    if given and any(out.ref == node.name for out in graph.outputs):
        return Unfit("what is returned would be what was given")
    changed = replace(graph, w, node.name, {Ref(ref=node.name): ref})
    return Rewritten(changed, "parts of a tensor side by side are the tensor")


def stack_of_calls(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """What one call makes of many parts of a tensor, side by side, is what it makes of all."""
    found = _gathering(graph, node)
    calls = _alike(graph, found.refs) if found is not None else None
    if found is None or calls is None or calls[0].kwargs:
        return None
    if not is_made_of_parts(graph, found.refs):
        return None
    if not all(read_once(graph, ref) for ref in found.refs):
        return None
    for dim in dict.fromkeys((found.dim, 0)):
        w = Writer(graph)
        args = _arguments(w, calls, dim)
        if args is None:
            continue
        spec = calls[0].spec
        shape = (*spec.shape[:dim], len(calls), *spec.shape[dim:])
        target = calls[0].target
        if operator(calls[0]) in ("mm", "bmm"):
            target = "aten.matmul.default"
        ref = w.call(target, args, shape, spec.dtype)
        ref = joined(w, moved(w, ref, dim, found.dim), node.spec)
        changed = replace(graph, w, node.name, {Ref(ref=node.name): ref})
        return Rewritten(changed, f"many calls of {operator(calls[0])} are one")
    return None


def _gathering(graph: OpGraph, node: Node) -> Gathering | None:
    if operator(node) not in ("stack", "cat"):
        return None
    found = gathering_of(graph, node.name)
    return found if found is not None and len(found.refs) >= LEAST else None


def _alike(graph: OpGraph, refs: Sequence[Ref]) -> list[Node] | None:
    """The calls that make some values, where these differ in nothing but the tensors they read."""
    calls = [one for ref in refs if (one := producer(graph, ref)) is not None]
    if len(calls) < len(refs):
        return None
    first = calls[0]
    if not isinstance(first.result, TensorSpec):
        return None
    form = _form(graph, first)
    return calls if all(_form(graph, one) == form for one in calls[1:]) else None


def _form(graph: OpGraph, node: Node) -> tuple[Any, ...]:
    """A call without the tensors it reads, but for their shapes and types."""
    specs = [(graph.spec_of(ref).shape, graph.spec_of(ref).dtype) for ref in node.refs]
    kept = [None if isinstance(arg, Ref) else arg for arg in node.args]
    return node.target, repr((kept, node.kwargs)), specs, node.result


def _varying(calls: Sequence[Node]) -> list[int]:
    """The arguments in which calls differ."""
    first = calls[0]
    places = range(len(first.args))
    return [n for n in places if any(call.args[n] != first.args[n] for call in calls)]


def _refs_at(calls: Sequence[Node], place: int) -> list[Ref]:
    return [ref for call in calls if isinstance(ref := call.args[place], Ref)]


def is_made_of_parts(graph: OpGraph, refs: Sequence[Ref], depth: int = 0) -> bool:
    """Whether values are parts of one tensor, or one kind of call makes them of such parts."""
    if common_source(graph, refs) is not None:
        return True
    calls = _alike(graph, refs) if depth < DEEPEST else None
    if calls is None:
        return False
    return any(is_made_of_parts(graph, _refs_at(calls, n), depth + 1) for n in _varying(calls))


def _arguments(w: Writer, calls: Sequence[Node], dim: int) -> tuple[Argument, ...] | None:
    """The arguments of one call for all of these, its result having them along `dim`.

    None where the operator can't take them so.
    """
    first, varying = calls[0], _varying(calls)
    rank = len(first.spec.shape)
    fits = _fits(w, first, varying, dim)
    if not varying or not fits:
        return None
    made: list[Argument] = list(first.args)
    for place in varying:
        made[place] = w.stacked(_refs_at(calls, place), dim)
    name = operator(first)
    if name in _REDUCTIONS:
        source = w.spec(first.refs[0])
        made[1] = _later(first.args[1], len(source.shape))
    elif name == "unsqueeze":
        made[1] = _later(first.args[1], rank)
    elif name in ("view", "reshape"):
        made[1] = [len(calls), *first.spec.shape]
    return tuple(made)


def _later(dims: Any, rank: int) -> Argument:
    """Dimensions as they are counted behind a new first one."""
    if isinstance(dims, list):
        return [int(dim) % rank + 1 for dim in dims]
    return int(dims) % rank + 1


def _fits(w: Writer, call: Node, varying: Sequence[int], dim: int) -> bool:
    """Whether an operator takes a dimension more at `dim`, in those arguments that vary."""
    name, rank = operator(call), len(call.spec.shape)
    ranks = [len(w.spec(ref).shape) if isinstance(ref, Ref) else 0 for ref in call.args]
    if name in _POINTWISE:
        fixed = [n for n, arg in enumerate(call.args) if isinstance(arg, Ref) and n not in varying]
        return all(ranks[n] == rank for n in varying) and all(ranks[n] <= rank - dim for n in fixed)
    if name in _PRODUCTS and varying == [0]:
        return ranks[0] == rank and dim < rank and ranks[1] == 2
    if name in _PRODUCTS and varying == [0, 1]:
        return name != "linear" and ranks[0] == ranks[1] == rank >= 2 and dim <= rank - 2
    if name in _REDUCTIONS:
        return varying == [0] and dim == 0 and len(call.args) > 1 and _are_dims(call.args[1])
    return name in ("unsqueeze", "view", "reshape") and varying == [0] and dim == 0


def _are_dims(given: Any) -> bool:
    if isinstance(given, list):
        return bool(given) and all(isinstance(one, int) for one in given)
    return isinstance(given, int) and not isinstance(given, bool)
