"""Which dimension of a tensor is which axis of an attention, through views that split and merge.

Scores have a `query` and a `key` for each `outer` batch, `window` (a batch within it), `head` and
`group` (the heads that share keys); queries and keys have a `depth`, values a `width`. While a
graph is read, `batch` stands for the outer batch and its windows, until a view tells them apart.
"""

from dataclasses import dataclass
from math import prod

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import operator
from knowledge.tiles import HALVES

# The axes that a dimension spans, outermost first; none where its one element is broadcast.
Label = tuple[str, ...]
Labels = tuple[Label, ...]
Sizes = dict[str, int]

# In the order in which a plain result lies in memory.
RESULT = ("outer", "window", "head", "group", "query", "width")
# The names of one, two and three leading dimensions that queries and keys share.
_SHARED: tuple[Label, ...] = ((), ("batch",), ("batch", "head"), ("outer", "window", "head"))
_IDLE = ("clone", "contiguous", "alias", "detach", "lift_fresh_copy")
CASTS = ("to", "_to_copy", "type_as")
_VIEWS = ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten")


@dataclass(frozen=True)
class Laid:
    """A tensor that is read as it lies, and the axes that each of its dimensions spans."""

    ref: Ref
    labels: Labels

    def dim(self, axis: str) -> int | None:
        """The dimension that spans an axis, alone or with others."""
        return next((n for n, label in enumerate(self.labels) if axis in label), None)


def shared_names(count: int, has_group: bool) -> Label | None:
    """The axes of the leading dimensions, if there is a name for so many."""
    shared = count - has_group
    if shared >= len(_SHARED):
        return None
    return _SHARED[shared] + (("group",) if has_group else ())


def permutation(node: Node) -> list[int] | None:
    """Where each dimension of a permuted tensor comes from."""
    rank = len(node.spec.shape)
    order = list(range(rank))
    if operator(node) == "permute":
        given = node.args[1]
        return [int(str(dim)) % rank for dim in given] if isinstance(given, list) else None
    if operator(node) == "transpose":
        first, second = (int(str(dim)) % rank for dim in node.args[1:3])
        order[first], order[second] = second, first
        return order
    return None


def is_idle_dropout(node: Node) -> bool:
    """Whether a call of dropout drops nothing."""
    if operator(node) != "dropout":
        return False
    _, share, training = node.args
    return share == 0.0 or training is False


def moved(graph: OpGraph, node: Node, labels: Labels, sizes: Sizes) -> Labels | None:
    """The labels after a call that moves, copies or converts elements; None for any other call.

    `sizes` learns of a batch that is split.
    """
    source = node.args[0] if node.args else None
    if not isinstance(source, Ref):
        return None
    name, shape = operator(node), graph.spec_of(source).shape
    if name in _IDLE or name in CASTS or is_idle_dropout(node):
        return labels
    if name in ("slice", "expand") and node.spec.shape == shape:
        return labels
    if (order := permutation(node)) is not None:
        return tuple(labels[dim] for dim in order)
    return viewed(labels, shape, node.spec.shape, sizes) if name in _VIEWS else None


def moves(node: Node) -> bool:
    """Whether `moved` may know what a call does."""
    name = operator(node)
    known = (*_IDLE, *CASTS, *_VIEWS, "slice", "expand", "permute", "transpose")
    return name in known or is_idle_dropout(node)


def viewed(
    labels: Labels, old: tuple[int, ...], new: tuple[int, ...], sizes: Sizes
) -> Labels | None:
    """The labels of a view in another shape; None where it cuts an axis, but for the batch."""
    shorter = min(len(old), len(new))
    first = next((n for n in range(shorter) if old[n] != new[n]), shorter)
    alike = range(shorter - first)
    last = next((n for n in alike if old[-1 - n] != new[-1 - n]), len(alike))
    waiting = [axis for label in labels[first : len(old) - last] for axis in label]
    made: list[Label] = []
    for size in new[first : len(new) - last]:
        label = _next_label(size, waiting, sizes)
        if label is None:
            return None
        made.append(label)
    if any(sizes[axis] != 1 for axis in waiting):
        return None
    return (*labels[:first], *made, *labels[len(labels) - last :])


def _next_label(size: int, waiting: list[str], sizes: Sizes) -> Label | None:
    """Takes the axes of a dimension of this size from those that wait; None if none fit."""
    label: Label = ()
    while (whole := prod(sizes[axis] for axis in label)) < size and waiting:
        axis, room = waiting.pop(0), size // whole
        if axis == "batch" and sizes[axis] > room and "window" not in sizes:
            if sizes[axis] % room:
                return None
            sizes.update(outer=room, window=sizes[axis] // room)
            waiting.insert(0, "window")
            axis = "outer"
        label += (axis,)
    return label if prod(sizes[axis] for axis in label) == size else None


def expanded(laid: Laid, meaning: dict[str, Label]) -> Laid:
    """A tensor's labels with some axes in place of others."""
    return Laid(laid.ref, renamed(laid.labels, meaning))


def renamed(labels: Labels, meaning: dict[str, Label]) -> Labels:
    """Labels with some axes in place of others."""
    return tuple(
        tuple(found for axis in label for found in meaning.get(axis, (axis,))) for label in labels
    )


def read_once(graph: OpGraph, ref: Ref) -> bool:
    """Whether one call alone reads a value: what only that call needs is not made without it."""
    kept = {out.ref for out in graph.outputs}
    kept |= {text.partition("[")[0] for text in graph.mutations.values()}
    return ref.index is None and len(graph.users[ref.ref]) == 1 and ref.ref not in kept


def settled(graph: OpGraph, laid: Laid) -> Laid:
    """The tensor behind permuted views: it can be read in its own order just as well."""
    while read_once(graph, laid.ref):
        node = graph.by_name[laid.ref.ref]
        order = permutation(node)
        if order is None or not isinstance(source := node.args[0], Ref):
            break
        labels: list[Label] = [()] * len(order)
        for place, dim in enumerate(order):
            labels[dim] = laid.labels[place]
        laid = Laid(source, tuple(labels))
    return laid


def unconverted(graph: OpGraph, laid: Laid) -> Laid:
    """The tensor of a half type that a float32 one was made of, if it was; permuted views aside."""
    laid = settled(graph, laid)
    node = graph.by_name[laid.ref.ref]
    if operator(node) not in CASTS or not read_once(graph, laid.ref):
        return laid
    source = node.args[0]
    if not isinstance(source, Ref) or graph.spec_of(source).dtype not in HALVES:
        return laid
    return settled(graph, Laid(source, laid.labels)) if node.spec.dtype == "float32" else laid


def unrepeated(graph: OpGraph, laid: Laid) -> tuple[Laid, int] | None:
    """Keys or values before each head was repeated for those that share it, and how often it was.

    By `repeat_interleave`, or by a view of what was expanded or repeated along a new dimension.
    """
    laid = settled(graph, laid)
    dim = laid.dim("head")
    if dim is None or laid.labels[dim] != ("head",) or not read_once(graph, laid.ref):
        return None
    node = graph.by_name[laid.ref.ref]
    source = node.args[0] if node.args else None
    if not isinstance(source, Ref):
        return None
    if operator(node) == "repeat_interleave":
        return _interleaved(graph, node, laid, dim)
    if operator(node) not in ("view", "_unsafe_view", "reshape", "flatten"):
        return None
    whole = graph.spec_of(source).shape
    inner = whole[dim + 1] if dim + 1 < len(whole) else 0
    shape = node.spec.shape
    if inner < 1 or whole != (*shape[:dim], shape[dim] // inner, inner, *shape[dim + 1 :]):
        return None
    base = _before_repeats(graph, source, dim + 1)
    if base is None:
        return None
    labels = (*laid.labels[: dim + 1], (), *laid.labels[dim + 1 :])
    return settled(graph, Laid(base, labels)), inner


def _interleaved(graph: OpGraph, node: Node, laid: Laid, dim: int) -> tuple[Laid, int] | None:
    given = dict(zip(("self", "repeats", "dim"), node.args, strict=False)) | node.kwargs
    times, along, source = given.get("repeats"), given.get("dim"), given["self"]
    if not isinstance(times, int) or not isinstance(along, int) or not isinstance(source, Ref):
        return None
    if along % len(node.spec.shape) != dim or times < 1:
        return None
    return settled(graph, Laid(source, laid.labels)), times


def _before_repeats(graph: OpGraph, ref: Ref, dim: int) -> Ref | None:
    """What was repeated along one dimension of size 1, and along no other."""
    node = graph.by_name[ref.ref]
    while operator(node) in _IDLE and isinstance(node.args[0], Ref) and read_once(graph, ref):
        ref = node.args[0]
        node = graph.by_name[ref.ref]
    repeats = operator(node) in ("expand", "repeat") and read_once(graph, ref)
    if not repeats or not isinstance(source := node.args[0], Ref):
        return None
    shape = node.spec.shape
    single = (*shape[:dim], 1, *shape[dim + 1 :])
    return source if graph.spec_of(source).shape == single else None
