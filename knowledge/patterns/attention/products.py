"""The two products of an attention: which of their operands' dimensions are which axes.

A product is a call of matmul, bmm or baddbmm, or an einsum of two tensors in any order of letters.
"""

from dataclasses import dataclass

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import operator
from knowledge.patterns.attention.axes import Label, Labels, Laid, Sizes, shared_names

_NO_PRODUCT = "has an equation that is no product of two matrices for each head"
_TOO_MANY = "has more leading dimensions than batches, windows and heads"


@dataclass(frozen=True)
class Scored:
    """Queries, keys, and what their product has for dimensions."""

    q: Laid
    k: Laid
    labels: Labels
    sizes: Sizes


def scored(graph: OpGraph, node: Node) -> Scored | str:
    """The axes of the product of queries and keys, or why it is not one for each head."""
    if operator(node) == "einsum":
        return _scored_by_letters(graph, node)
    q, k = node.args[-2], node.args[-1]
    assert isinstance(q, Ref)
    assert isinstance(k, Ref)
    shape, left, right = node.spec.shape, graph.spec_of(q).shape, graph.spec_of(k).shape
    if min(len(left), len(right)) < 2:
        return "is a product with a vector"
    lead = shape[:-2]
    own, theirs = ((1,) * len(lead) + sides[:-2] for sides in (left, right))
    own, theirs = own[len(own) - len(lead) :], theirs[len(theirs) - len(lead) :]
    names = shared_names(len(lead), bool(lead) and theirs[-1] == 1 < lead[-1])
    if names is None:
        return _TOO_MANY
    sizes = dict(zip(names, lead, strict=True))
    sizes |= {"query": shape[-2], "key": shape[-1], "depth": left[-1]}
    labels: Labels = tuple((name,) for name in names)
    spans = [
        tuple(label if size == whole else () for label, size, whole in zip(labels, given, lead,
                                                                           strict=True))
        for given in (own, theirs)
    ]  # fmt: skip
    return Scored(
        Laid(q, (*spans[0][len(lead) - len(left) + 2 :], ("query",), ("depth",))),
        Laid(k, (*spans[1][len(lead) - len(right) + 2 :], ("depth",), ("key",))),
        (*labels, ("query",), ("key",)), sizes,
    )  # fmt: skip


@dataclass(frozen=True)
class _Equation:
    refs: tuple[Ref, Ref]
    terms: tuple[str, str]
    result: str


def _equation(graph: OpGraph, node: Node) -> _Equation | None:
    """An einsum's operands and letters, each once in each; dots are letters of their own."""
    if not isinstance(node.args[1], list):
        return None
    text, arrow, result = str(node.args[0]).replace(" ", "").partition("->")
    terms, refs = text.split(","), [one for one in node.args[1] if isinstance(one, Ref)]
    if not arrow or len(terms) != 2 or len(refs) != 2:
        return None
    shapes = [graph.spec_of(ref).shape for ref in refs]
    dots = {len(shape) - len(term) + 3 for term, shape in zip(terms, shapes, strict=True)
            if "..." in term}  # fmt: skip
    if len(dots) > 1 or (("..." in text) != ("..." in result)):
        return None
    more = "".join(chr(ord("0") + n) for n in range(max(dots, default=0)))
    terms, result = [term.replace("...", more) for term in terms], result.replace("...", more)
    if any(len(set(term)) != len(term) for term in (*terms, result)):
        return None
    if any(len(term) != len(shape) for term, shape in zip(terms, shapes, strict=True)):
        return None
    return _Equation((refs[0], refs[1]), (terms[0], terms[1]), result)


def _scored_by_letters(graph: OpGraph, node: Node) -> Scored | str:
    made = _equation(graph, node)
    if made is None or not made.result or not set(made.result) <= set("".join(made.terms)):
        return _NO_PRODUCT
    key = made.result[-1]
    turn = key in made.terms[0]
    (q, k), (left, right) = made.refs, made.terms
    if turn:
        q, k, left, right = k, q, right, left
    size = dict(zip(left, graph.spec_of(q).shape, strict=True))
    if any(size.setdefault(*pair) != pair[1] for pair in zip(right, graph.spec_of(k).shape,
                                                             strict=True)):  # fmt: skip
        return _NO_PRODUCT
    depth = [letter for letter in left if letter not in made.result]
    own = [letter for letter in made.result if letter in left and letter not in right]
    shared = [letter for letter in made.result if letter in left and letter in right]
    fits = key not in left and len(depth) == 1 and depth[0] in right and 1 <= len(own) <= 2
    if not fits or len(right) != len(shared) + 2:
        return _NO_PRODUCT
    # Of two, the queries are those of which there are more: a group has few heads.
    query = max(reversed(own), key=lambda letter: size[letter])
    groups = [letter for letter in own if letter != query]
    names = shared_names(len(shared) + len(groups), bool(groups))
    if names is None:
        return _TOO_MANY
    axis = dict(zip([*shared, *groups], names, strict=True))
    axis |= {query: "query", key: "key", depth[0]: "depth"}
    q_laid, k_laid = (
        Laid(ref, tuple((axis[letter],) for letter in letters))
        for ref, letters in ((q, left), (k, right))
    )
    labels = tuple((axis[letter],) for letter in made.result)
    return Scored(q_laid, k_laid, labels, {axis[letter]: size[letter] for letter in axis})


@dataclass(frozen=True)
class Weighed:
    """The values, and what their weighted sum has for dimensions."""

    v: Laid
    labels: Labels
    width: int


def weighed(
    graph: OpGraph, node: Node, weights: Ref, labels: Labels, sizes: Sizes
) -> Weighed | str:
    """The axes of the product of weights and values, or why it is not that."""
    if operator(node) == "einsum":
        return _weighed_by_letters(graph, node, weights, labels, sizes)
    if node.args.count(weights) != 1:
        return "weighs itself"
    comes_second = node.args[1] == weights
    values = node.args[0] if comes_second else node.args[1]
    assert isinstance(values, Ref)
    shape, lead = graph.spec_of(values).shape, labels[:-2]
    if len(shape) < 2 or len(shape) - 2 > len(lead) or len(node.spec.shape) != len(labels):
        return "broadcasts its weights over values"
    if labels[-2 if comes_second else -1] != ("key",):
        return "sums over another dimension than the keys"
    missing = len(lead) - len(shape) + 2
    spans = _spans(shape[:-2], lead[missing:], sizes)
    if spans is None:
        return "broadcasts its weights over values"
    if comes_second:
        made = Laid(values, (*spans, ("width",), ("key",)))
        return _whole(made, (*lead, ("width",), labels[-1]), shape[-2])
    made = Laid(values, (*spans, ("key",), ("width",)))
    return _whole(made, (*lead, labels[-2], ("width",)), shape[-1])


def _spans(shape: tuple[int, ...], labels: Labels, sizes: Sizes) -> Labels | None:
    """The labels of leading dimensions, none where values are broadcast."""
    found: list[Label] = []
    for size, label in zip(shape, labels, strict=True):
        whole = 1
        for axis in label:
            whole *= sizes[axis]
        if size not in (1, whole):
            return None
        found.append(label if size == whole else ())
    return tuple(found)


def _whole(v: Laid, labels: Labels, width: int) -> Weighed | str:
    if any(axis in ("group", "query") for label in v.labels for axis in label):
        return "has values of their own for heads that share keys"
    return Weighed(v, labels, width)


def _weighed_by_letters(
    graph: OpGraph, node: Node, weights: Ref, labels: Labels, sizes: Sizes
) -> Weighed | str:
    made = _equation(graph, node)
    if made is None or made.refs.count(weights) != 1:
        return _NO_PRODUCT
    first = made.refs.index(weights)
    letters, others, values = made.terms[first], made.terms[1 - first], made.refs[1 - first]
    if ("key",) not in labels:
        return "sums over another dimension than the keys"
    key = letters[labels.index(("key",))]
    width = [letter for letter in others if letter not in letters]
    kept = set(letters) - {key}
    if len(width) != 1 or key not in others or set(made.result) != kept | set(width):
        return _NO_PRODUCT
    of = dict(zip(letters, labels, strict=True))
    size = dict(zip(letters, graph.spec_of(weights).shape, strict=True))
    shape = graph.spec_of(values).shape
    if any(size.get(letter, whole) != whole for letter, whole in zip(others, shape, strict=True)):
        return "broadcasts its weights over values"
    of[width[0]] = ("width",)
    v = Laid(values, tuple(of[letter] for letter in others))
    wide = shape[others.index(width[0])]
    return _whole(v, tuple(of[letter] for letter in made.result), wide)
