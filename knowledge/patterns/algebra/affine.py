"""Sums of products with fixed matrices, and of offsets: what a recurrent net's gate is applied to.

However it was written: layers added up, one layer over values laid side by side, some columns of a
wider layer, or one layer over a whole sequence of which a part is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from knowledge.opgraph import Argument, Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, argument, operator, producer
from knowledge.patterns.algebra.parts import Part, Source, part_of, run_of, source_of, whole_of

# So many calls deep a sum is looked into.
DEEPEST = 8


@dataclass(frozen=True)
class Matrix:
    """Some rows (outputs) and columns (inputs) of a weight as a linear layer takes it.

    `transposed` says that the weight lies in memory the other way round, `negative` that all its
    elements count with the other sign.
    """

    ref: Ref
    rows: tuple[int, int]
    columns: tuple[int, int]
    transposed: bool = False
    negative: bool = False


@dataclass(frozen=True)
class Vector:
    """Some elements of what is added to every row."""

    ref: Ref
    rows: tuple[int, int]
    negative: bool = False


@dataclass(frozen=True)
class Affine:
    """The sum of products of sources with matrices, and of offsets."""

    products: tuple[tuple[Source, Matrix], ...] = ()
    offsets: tuple[Vector, ...] = ()

    def __add__(self, other: "Affine") -> "Affine":
        return Affine((*self.products, *other.products), (*self.offsets, *other.offsets))

    @property
    def negated(self) -> "Affine":
        """The same with the other sign."""
        return Affine(
            tuple((one, replace(m, negative=not m.negative)) for one, m in self.products),
            tuple(replace(offset, negative=not offset.negative) for offset in self.offsets),
        )

    def narrowed(self, begin: int, end: int) -> "Affine":
        """Its columns [begin, end)."""
        return Affine(
            tuple((one, replace(m, rows=_within(m.rows, begin, end))) for one, m in self.products),
            tuple(replace(one, rows=_within(one.rows, begin, end)) for one in self.offsets),
        )

    def matrix(self, source: Source) -> Matrix | None:
        """What one source is multiplied by; None unless there is exactly one."""
        found = [matrix for one, matrix in self.products if one == source]
        return found[0] if len(found) == 1 else None


def _within(rows: tuple[int, int], begin: int, end: int) -> tuple[int, int]:
    return rows[0] + begin, rows[0] + end


def affine_of(graph: OpGraph, ref: Ref, depth: int = 0) -> Affine | None:
    """A value as a sum of products and offsets, None where it is none."""
    ref, node = whole_of(graph, ref), graph.by_name[ref.ref]
    if node.kind != "call":
        return _offset(graph, ref)
    if depth > DEEPEST:
        return None
    name = operator(node)
    if name in ("linear", "mm", "matmul", "addmm"):
        return _layer(graph, node)
    if name == "add":
        return _sum(graph, node, depth)
    shape = graph.spec_of(ref).shape
    run = run_of(graph, ref)
    if run is not None and run.dim == len(shape) - 1:
        inner = affine_of(graph, run.source, depth + 1)
        return inner.narrowed(run.begin, run.end) if inner is not None else None
    part = part_of(graph, ref)
    if part is None or part.dim == len(shape):
        return None
    inner = affine_of(graph, part.source, depth + 1)
    return _taken(graph, inner, part) if inner is not None else None


def _offset(graph: OpGraph, ref: Ref) -> Affine | None:
    shape = graph.spec_of(ref).shape
    if not shape or any(size != 1 for size in shape[:-1]):
        return None
    return Affine(offsets=(Vector(ref, (0, shape[-1])),))


def _sum(graph: OpGraph, node: Node, depth: int) -> Affine | None:
    """Two of them added; neither may be spread over rows or columns, but for offsets over rows."""
    if len(node.args) != 2 or node.kwargs:
        return None
    total = Affine()
    for value in node.args:
        inner = affine_of(graph, value, depth + 1) if isinstance(value, Ref) else None
        if inner is None or not isinstance(value, Ref):
            return None
        shape = graph.spec_of(value).shape
        if shape != node.spec.shape and (inner.products or shape[-1] != node.spec.shape[-1]):
            return None
        total += inner
    return total


def _layer(graph: OpGraph, node: Node) -> Affine | None:
    """A linear layer, or a product with a matrix, over one source or several side by side."""
    given = node.args
    offsets: tuple[Vector, ...] = ()
    if operator(node) == "addmm":
        if node.kwargs or not isinstance(given[0], Ref):
            return None
        bias: Argument = given[0]
        given = given[1:]
    else:
        bias = argument(node, 2, "bias") if operator(node) == "linear" else None
    source, weight = given[0], given[1]
    if not isinstance(source, Ref) or not isinstance(weight, Ref):
        return None
    shape = graph.spec_of(weight).shape
    if len(shape) != 2 or len(graph.spec_of(source).shape) < 2:
        return None
    if isinstance(bias, Ref):
        added = _offset(graph, bias)
        if added is None or graph.spec_of(bias).shape[-1] != node.spec.shape[-1]:
            return None
        offsets = added.offsets
    turned = operator(node) != "linear"
    made = graph.by_name[weight.ref]
    inner = made.args[0] if made.args else None
    if _turns(made) and isinstance(inner, Ref):
        weight, turned = inner, not turned
    rows, columns = (shape[::-1] if operator(node) != "linear" else shape)[:2]
    matrix = Matrix(weight, (0, rows), (0, columns), turned)
    return Affine(tuple(_side_by_side(graph, source, matrix)), offsets)


def _turns(node: Node) -> bool:
    """Whether a call transposes a matrix."""
    if operator(node) == "permute":
        return node.args[1] in ([1, 0], [-1, 0], [1, -2], [-1, -2])
    if operator(node) == "transpose":
        return node.args[1] != node.args[2]
    return operator(node) in ("t", "numpy_T")


def _side_by_side(graph: OpGraph, source: Ref, matrix: Matrix) -> list[tuple[Source, Matrix]]:
    """A product with a source, or with each of those that were laid side by side to make it."""
    node = producer(graph, source)
    parts = node.args[0] if node is not None and node.args else None
    last = len(graph.spec_of(source).shape) - 1
    if node is None or operator(node) != "cat" or not isinstance(parts, list):
        return [(source_of(graph, source), matrix)]
    refs = [one for one in parts if isinstance(one, Ref)]
    if int(argument(node, 1, "dim", 0)) % (last + 1) != last or len(refs) != len(parts):
        return [(source_of(graph, source), matrix)]
    ends = accumulate((graph.spec_of(ref).shape[last] for ref in refs), initial=0)
    return [
        (source_of(graph, ref), replace(matrix, columns=run))
        for ref, run in zip(refs, pairwise(ends), strict=True)
    ]


def _taken(graph: OpGraph, whole: Affine, part: Part) -> Affine | None:
    """A part of what layers make of sequences, as what they make of those sequences' parts."""
    products: list[tuple[Source, Matrix]] = []
    rank = len(graph.spec_of(part.source).shape)
    for source, matrix in whole.products:
        if not isinstance(source, Ref) or len(graph.spec_of(source).shape) != rank:
            return None
        products.append((Part(whole_of(graph, source), part.dim, part.at), matrix))
    return Affine(tuple(products), whole.offsets) if products else None


def write_matrix(w: Writer, matrices: Sequence[Matrix]) -> Ref:
    """The rows of several matrices below each other."""
    runs: list[Matrix] = []
    for one in matrices:
        last = runs[-1] if runs else None
        if last is not None and replace(last, rows=one.rows) == one and last.rows[1] == one.rows[0]:
            runs[-1] = replace(last, rows=(last.rows[0], one.rows[1]))
        else:
            runs.append(one)
    made = [_write_rows(w, one) for one in runs]
    return _below_each_other(w, made)


def _write_rows(w: Writer, one: Matrix) -> Ref:
    ref = one.ref
    spans = (one.columns, one.rows) if one.transposed else (one.rows, one.columns)
    for dim, (begin, end) in enumerate(spans):
        ref = w.sliced(ref, dim, begin, end)
    if one.transposed:
        spec = w.spec(ref)
        ref = w.call("aten.t.default", (ref,), spec.shape[::-1], spec.dtype)
    return _signed(w, ref, one.negative)


def write_vector(w: Writer, vectors: Sequence[Vector | None], like: Vector) -> Ref:
    """Several vectors one after the other; where one is missing, zeros like another one."""
    runs: list[Vector | None] = []
    for one in vectors:
        last = runs[-1] if runs else None
        if one and last and replace(last, rows=one.rows) == one and last.rows[1] == one.rows[0]:
            runs[-1] = replace(last, rows=(last.rows[0], one.rows[1]))
        else:
            runs.append(one)
    return _below_each_other(w, [_write_elements(w, one, like) for one in runs])


def _write_elements(w: Writer, one: Vector | None, like: Vector) -> Ref:
    vector = one or like
    ref, spec = vector.ref, w.spec(vector.ref)
    if len(spec.shape) > 1:
        ref = w.call("aten.reshape.default", (ref, [spec.shape[-1]]), spec.shape[-1:], spec.dtype)
    ref = _signed(w, w.sliced(ref, 0, *vector.rows), vector.negative)
    if one is None:
        spec = w.spec(ref)
        ref = w.call("aten.zeros_like.default", (ref,), spec.shape, spec.dtype)
    return ref


def _signed(w: Writer, ref: Ref, negative: bool) -> Ref:
    spec = w.spec(ref)
    return w.call("aten.neg.default", (ref,), spec.shape, spec.dtype) if negative else ref


def _below_each_other(w: Writer, refs: Sequence[Ref]) -> Ref:
    if len(refs) == 1:
        return refs[0]
    specs = [w.spec(ref) for ref in refs]
    shape = (sum(spec.shape[0] for spec in specs), *specs[0].shape[1:])
    return w.call("aten.cat.default", ([*refs], 0), shape, specs[0].dtype)
