"""Finds attention in a graph: the library's own call, or the two products with a softmax between.

Every way to write it comes down to one product scaled by a factor, perhaps capped, then masks, and
the values; `chain.py` and `products.py` read how it is written, `axes.py` in which order tensors
lie.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import operator
from knowledge.patterns.attention.axes import (
    CASTS,
    RESULT,
    Label,
    Labels,
    Laid,
    Sizes,
    expanded,
    moved,
    renamed,
    settled,
    shared_names,
    unconverted,
    unrepeated,
)
from knowledge.patterns.attention.chain import (
    SOFTMAX,
    Scores,
    leaves_out_sink,
    unscaled,
    way_down,
    way_up,
)
from knowledge.patterns.attention.code import Form, Mask
from knowledge.patterns.attention.products import Scored, scored, weighed
from knowledge.program import Backend, Program
from knowledge.tiles import HALVES

CALL = "aten.scaled_dot_product_attention.default"
# What kernels in each language compute in.
KINDS: dict[Backend, tuple[str, ...]] = {
    "cpp": ("float32", *HALVES), "triton": ("float32", *HALVES), "cuda": (),
}  # fmt: skip
# Calls that draw random numbers are made even if nothing reads them.
_RANDOM = ("rand", "dropout", "bernoulli", "normal", "uniform")


@dataclass(frozen=True)
class Anchor:
    """An attention: its tensors, what is compiled in, and the calls that it stands for.

    `sizes` has the traced size of each axis, `labels` the axes of each dimension of `result`, the
    call whose value is written.
    """

    q: Laid
    k: Laid
    v: Laid
    masks: tuple[Laid, ...]
    sink: Laid | None
    form: Form
    sizes: Sizes
    labels: Labels
    nodes: tuple[str, ...]
    result: Node

    @property
    def operands(self) -> tuple[Laid, ...]:
        """All that is read, in the order of the kernel's arguments."""
        return (self.q, self.k, self.v, *self.masks, *([self.sink] if self.sink else []))

    def size(self, axis: str) -> int:
        """The traced size of an axis; 1 of one that is not there."""
        return self.sizes.get(axis, 1)


def find_anchors(program: Program) -> tuple[list[Anchor], list[str]]:
    """The attentions that can be taken, and why others can't, a phrase each."""
    anchors: list[Anchor] = []
    reasons: list[str] = []
    for node in program.graph.calls:
        found: Anchor | str | None
        if node.target == CALL:
            found = _library_call(program.graph, node)
        elif operator(node) in SOFTMAX:
            found = _written_out(program.graph, node)
        else:
            continue
        if isinstance(found, Anchor):
            found = _finished(program, found)
        if isinstance(found, str):
            reasons.append(f"{node.name} {found}")
        elif found is not None:
            anchors.append(found)
    return anchors, reasons


def _library_call(graph: OpGraph, node: Node) -> Anchor | str:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if given.get("dropout_p", 0.0) != 0.0:
        return "drops weights at random, which only the library reproduces"
    q, k, v, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
    factor = given.get("scale")
    if factor is not None and not 0 < factor < math.inf:
        return "has a scale that is not positive, by which the library turns hidden keys to NaN"
    form = Form(factor=factor, empty_is_zero=True, causal=bool(given.get("is_causal", False)))
    if form.causal and mask is not None:
        return "has a mask and is causal too, which the library refuses"
    made = _call_operands(graph, node, (q, k, v), bool(given.get("enable_gqa", False)))
    if isinstance(made, str):
        return made
    whole, v_laid = made
    masks: tuple[Laid, ...] = ()
    if isinstance(mask, Ref):
        kind, shape = graph.spec_of(mask).dtype, graph.spec_of(mask).shape
        if len(shape) > len(whole.labels):
            return "has a mask that makes more scores than there are pairs of queries and keys"
        if kind not in ("bool", graph.spec_of(q).dtype):
            return f"has a mask of {kind}"
        form = replace(form, masks=(Mask(kind="keep" if kind == "bool" else "add", dtype=kind),))
        masks = (Laid(mask, whole.labels[len(whole.labels) - len(shape) :]),)
    labels = (*whole.labels[:-1], ("width",))
    return Anchor(
        whole.q, whole.k, v_laid, masks, None, form, whole.sizes, labels, (node.name,), node
    )


def _call_operands(
    graph: OpGraph, node: Node, given: tuple[Ref, Ref, Ref], shares: bool
) -> tuple[Scored, Laid] | str:
    """The axes of the library's call; `shares` says that heads may share keys."""
    shapes = [graph.spec_of(ref).shape for ref in given]
    if {len(shape) for shape in shapes} not in ({3}, {4}):
        return "has operands that are not all of 3 or all of 4 dimensions"
    q, k, v = shapes
    if k[:-2] != v[:-2] or q[:-3] != k[:-3]:
        return "broadcasts keys or values over the batch"
    if q[-3] != k[-3] and not shares:
        return "broadcasts keys or values over the heads"
    if k[-3] == 0 or q[-3] % k[-3]:
        return "has a number of heads that is no multiple of its keys' heads"
    names = shared_names(len(q) - 2, has_group=False)
    assert names is not None
    sizes = dict(zip(names, q[:-2], strict=True))
    sizes |= {"query": q[-2], "key": k[-2], "depth": q[-1], "width": v[-1]}
    lead: Labels = tuple((name,) for name in names)
    theirs, groups = lead, q[-3] // k[-3]
    if groups > 1:
        lead = (*lead[:-1], (names[-1], "group"))
        sizes |= {names[-1]: k[-3], "group": groups}
    return Scored(
        Laid(given[0], (*lead, ("query",), ("depth",))),
        Laid(given[1], (*theirs, ("key",), ("depth",))),
        (*lead, ("query",), ("key",)), sizes,
    ), Laid(given[2], (*theirs, ("key",), ("width",)))  # fmt: skip


def _written_out(graph: OpGraph, softmax: Node) -> Anchor | str | None:
    """The attention around a softmax; None where it is something else, say a classifier's."""
    down = way_down(graph, softmax)
    source = softmax.args[0]
    up = way_up(graph, source) if isinstance(source, Ref) else None
    if down is None or up is None:
        return None
    first = scored(graph, up[0])
    if isinstance(first, str):
        return first
    (q, by_q), (k, by_k) = (unscaled(graph, one) for one in (first.q, first.k))
    scores = Scores(graph, first.labels, dict(first.sizes), by_q * by_k)
    if why := scores.start(up[0]) or _walk(scores, up):
        return why
    rank = len(softmax.spec.shape)
    if softmax.args[1] not in (-1, rank - 1) or scores.labels[-1] != ("key",):
        return "runs over another dimension than the keys"
    after = _through_weights(graph, scores, [softmax, *down])
    if isinstance(after, str):
        return after
    second = weighed(graph, down[-1], Ref(ref=after[0]), after[1], scores.sizes)
    if isinstance(second, str):
        return second
    form = scores.form()
    if isinstance(form, str):
        return form
    calls = [*up, softmax, *down]
    q, k, v = _as_stored(graph, (q, k, second.v))
    rounded = {node.spec.dtype for node in calls} - {graph.spec_of(q.ref).dtype, "float32"}
    if rounded:
        return f"rounds its scores to {' and '.join(sorted(rounded))}"
    masks = tuple(laid for laid, _ in scores.masks)
    sizes = {**scores.sizes, "width": second.width}
    names = [*scores.beside, *(node.name for node in calls)]
    return Anchor(q, k, v, masks, scores.sink, form, sizes, second.labels, tuple(names), down[-1])


def _as_stored(graph: OpGraph, given: tuple[Laid, Laid, Laid]) -> tuple[Laid, Laid, Laid]:
    """Queries, keys and values before halves were made floats, which the kernel does itself."""
    q, k, v = (unconverted(graph, one) for one in given)
    same = len({graph.spec_of(one.ref).dtype for one in (q, k, v)}) == 1
    return (q, k, v) if same else given


def _walk(scores: Scores, up: list[Node]) -> str | None:
    for before, node in itertools.pairwise(up):
        if why := scores.step(node, Ref(ref=before.name)):
            return why
    return None


def _through_weights(graph: OpGraph, scores: Scores, calls: list[Node]) -> tuple[str, Labels] | str:
    """The weights that meet the values, by name, and their axes."""
    labels, kept = scores.labels, scores.sink is None
    for node in calls[1:-1]:
        if not kept and leaves_out_sink(node, scores.sizes["key"]):
            kept = True
            continue
        found = moved(graph, node, labels, scores.sizes)
        if found is None:
            return f"has its weights in another shape ({node.name})"
        labels = found
    return (calls[-2].name, labels) if kept else "has a value for its sink"


def _finished(program: Program, anchor: Anchor) -> Anchor | str:
    """The anchor with all that belongs to it, if it is such as the kernel takes."""
    graph = program.graph
    if any(name in program.kernel_of for name in anchor.nodes):
        return "is computed by another kernel already"
    specs = [graph.spec_of(laid.ref) for laid in (anchor.q, anchor.k, anchor.v)]
    anchor = _with_converted_result(graph, anchor, specs[0].dtype)
    dtypes = dict.fromkeys([*(spec.dtype for spec in specs), anchor.result.spec.dtype])
    if len(dtypes) != 1 or specs[0].dtype not in KINDS[program.backend]:
        told = " and ".join(dtypes)
        return f"computes in {told}, and the kernel in float32 or one half type alone"
    if any(0 in spec.shape for spec in specs):
        return "reads an empty tensor"
    anchor = _with_moved_result(program, _with_plain_axes(graph, anchor))
    order = [axis for label in anchor.labels for axis in label]
    absent = tuple(axis for axis in RESULT if axis not in order)
    made = math.prod(anchor.size(axis) for axis in order)
    if made != anchor.result.spec.numel or any(anchor.size(axis) != 1 for axis in absent):
        return "has a mask that makes more scores than there are pairs of queries and keys"
    form = replace(anchor.form, order=(*absent, *order), dtype=specs[0].dtype)
    nodes = _with_what_only_it_reads(program, anchor)
    returned = {ref.ref for ref in graph.outputs} & (set(nodes) - {anchor.result.name})
    if returned or not _only_inside(graph, set(nodes), anchor.result.name):
        return "has scores or weights that are needed for something else too"
    if not program.can_take(nodes, [laid.ref for laid in anchor.operands]):
        return "reads what another kernel keeps to itself"
    return replace(anchor, form=form, nodes=nodes)


def _with_converted_result(graph: OpGraph, anchor: Anchor, dtype: str) -> Anchor:
    """The anchor with the conversion of its result to the type that its operands are stored in."""
    users = graph.users[anchor.result.name]
    if anchor.result.spec.dtype == dtype or len(users) != 1 or operator(users[0]) not in CASTS:
        return anchor
    if users[0].spec.dtype != dtype or any(r.ref == anchor.result.name for r in graph.outputs):
        return anchor
    return replace(anchor, nodes=(*anchor.nodes, users[0].name), result=users[0])


def _with_plain_axes(graph: OpGraph, anchor: Anchor) -> Anchor:
    """The anchor with windows told from batches, and keys as they were before they were copied."""
    sizes, meaning = dict(anchor.sizes), dict[str, Label]()
    if "batch" in sizes:
        whole = sizes.pop("batch")
        sizes.setdefault("outer", whole)
        meaning["batch"] = ("outer", "window") if "window" in sizes else ("outer",)
    k, v = settled(graph, anchor.k), settled(graph, anchor.v)
    several = [unrepeated(graph, one) for one in (k, v)] if "group" not in sizes else []
    match several:
        case [(k_before, times), (v_before, again)] if times == again and times > 1:
            k, v = k_before, v_before
            meaning["head"] = ("head", "group")
            sizes |= {"head": sizes["head"] // times, "group": times}
    own = {axis: label for axis, label in meaning.items() if axis == "batch"}
    sink = anchor.sink
    return replace(
        anchor, q=expanded(settled(graph, anchor.q), meaning), k=expanded(k, own),
        v=expanded(v, own), masks=tuple(expanded(mask, meaning) for mask in anchor.masks),
        sink=expanded(sink, meaning) if sink else None, sizes=sizes,
        labels=renamed(anchor.labels, meaning),
    )  # fmt: skip


def _with_moved_result(program: Program, anchor: Anchor) -> Anchor:
    """The anchor with views of its result after it, as far as a dense copy that follows them."""
    graph, sizes = program.graph, dict(anchor.sizes)
    returned = {ref.ref for ref in graph.outputs}
    node, labels, nodes, best = anchor.result, anchor.labels, list(anchor.nodes), anchor
    while len(users := graph.users[node.name]) == 1 and node.name not in returned:
        node = users[0]
        found = moved(graph, node, labels, sizes)
        other = node.spec.dtype != best.result.spec.dtype
        if found is None or other or node.name in program.kernel_of:
            break
        labels, nodes = found, [*nodes, node.name]
        if _is_dense_copy(node):
            best = replace(anchor, labels=labels, nodes=tuple(nodes), result=node)
    return best


def _is_dense_copy(node: Node) -> bool:
    if operator(node) == "clone":
        return node.kwargs.get("memory_format") == "torch.contiguous_format"
    return operator(node) == "contiguous" and not node.kwargs


def _with_what_only_it_reads(program: Program, anchor: Anchor) -> tuple[str, ...]:
    """The anchor's calls in order, and those whose values nothing else would read any more."""
    graph = program.graph
    read = {laid.ref.ref for laid in anchor.operands} | {ref.ref for ref in graph.outputs}
    read |= {text.partition("[")[0] for text in graph.mutations.values()}
    names = set(anchor.nodes)
    for node in reversed(graph.calls):
        users = [user.name for user in graph.users[node.name]]
        needed = not users or node.name in read or node.name in program.kernel_of
        if needed or any(word in node.target for word in _RANDOM):
            continue
        if all(name in names for name in users):
            names.add(node.name)
    return tuple(node.name for node in graph.calls if node.name in names)


def _only_inside(graph: OpGraph, names: Sequence[str] | set[str], last: str) -> bool:
    inside = set(names)
    return all(user.name in inside for name in inside - {last} for user in graph.users[name])
