"""What a model permutes itself, for a norm over channels, say: there in channels-last form.

Such a permute moves nothing once what it reads, or what it makes, lies with channels last.
"""

from knowledge.opgraph import Argument, Node, OpGraph, Ref, TensorSpec
from knowledge.patterns.algebra.edit import argument, dense, operator
from knowledge.patterns.channels_last.layouts import POINTWISE, TO_FIRST, TO_LAST, Layouts

PERMUTES = ("permute", "transpose")


def permuted(layouts: Layouts, layers: frozenset[str], node: Node, source: Ref) -> bool:
    """Whether a permute could be written as what is there already, and was.

    Args:
        layouts: what was written so far.
        layers: the names of convolutions that become channels-last.
        node: the permute.
        source: what it reads.
    """
    graph, last = layouts.graph, layouts.last
    order = _order(graph, node, source)
    if order == TO_FIRST and _meets_images(layouts, layers, node, source):
        layouts.keep(node)
        own = Ref(ref=node.name)
        last[own], layouts.first[own] = layouts.plain(source), own
        return True
    if not _read_as_rows(graph, node):
        return False
    if order == TO_LAST and source in last:
        layouts.renamed[Ref(ref=node.name)] = last[source]
        return True
    image = _flattened(layouts, source)
    if order != (0, 2, 1) or image is None:
        return False
    shape = node.spec.shape
    args: tuple[Argument, ...] = (last[image], list(shape))
    layouts.renamed[Ref(ref=node.name)] = layouts.emit(
        f"{node.name}_pixels", "aten.view.default", args, dense(shape, node.spec.dtype)
    )
    return True


def _order(graph: OpGraph, node: Node, source: Ref) -> tuple[int, ...]:
    """The order of the source's dimensions in which a call sees them."""
    dims = len(graph.spec_of(source).shape)
    if operator(node) == "permute":
        given = argument(node, 1, "dims")
        return tuple(int(str(dim)) % dims for dim in given) if isinstance(given, list) else ()
    pair = [int(str(argument(node, at, f"dim{at - 1}", 0))) % dims for at in (1, 2)]
    order = list(range(dims))
    order[pair[0]], order[pair[1]] = order[pair[1]], order[pair[0]]
    return tuple(order)


def _meets_images(layouts: Layouts, layers: frozenset[str], node: Node, source: Ref) -> bool:
    """Whether a row-major value is seen as images by what has some in this form already."""
    spec = layouts.graph.spec_of(source)
    return (spec.contiguous and spec.dtype == "float32") and any(
        user.name in layers
        or (operator(user) in POINTWISE and any(ref in layouts.last for ref in user.refs))
        for user in layouts.graph.users[node.name]
    )


def _read_as_rows(graph: OpGraph, node: Node) -> bool:
    """Whether nothing that is made of a value takes its strides over, which will be others."""
    users = graph.users[node.name]
    read = any(ref.ref == node.name for ref in graph.outputs)
    return not read and all(
        isinstance(made, TensorSpec) and made.contiguous
        for user in users
        for made in (user.result if isinstance(user.result, tuple) else (user.result,))
    )


def _flattened(layouts: Layouts, ref: Ref) -> Ref | None:
    """The image whose pixels a value of shape (N, C, H * W) has, if it is channels-last."""
    node = layouts.graph.by_name[ref.ref]
    source = node.args[0] if node.args else None
    if operator(node) not in ("flatten", "view", "reshape", "_unsafe_view"):
        return None
    if not isinstance(source, Ref) or source not in layouts.last:
        return None
    images, channels, *pixels = layouts.graph.spec_of(source).shape
    whole = (images, channels, pixels[0] * pixels[1])
    return source if layouts.graph.spec_of(ref).shape == whole else None
