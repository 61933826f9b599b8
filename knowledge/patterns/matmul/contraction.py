"""A matrix product as the kernels see it: two matrices as they lie in memory, and sizes as text."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.program import Check, variable


@dataclass(frozen=True)
class Triangle:
    """What is kept of a matrix: `lower` j <= i + diagonal, or else j >= i + diagonal."""

    lower: bool
    diagonal: int

    def flipped(self) -> "Triangle":
        """The same triangle, seen from the transposed matrix."""
        return Triangle(not self.lower, -self.diagonal)


@dataclass(frozen=True)
class Extent:
    """A size: the Python expression that gives it at run time, and its traced value."""

    text: str
    traced: int

    @staticmethod
    def product(extents: tuple["Extent", ...]) -> "Extent":
        """The size of several dimensions taken as one."""
        text = " * ".join(one.text for one in extents) or "1"
        return Extent(text, prod(one.traced for one in extents))


@dataclass(frozen=True)
class Operand:
    """A matrix, or a batch of them, as it lies in memory.

    `along` says that neighbours in memory are neighbours along the depth, which the product sums
    over. `spans` says for each group of batch dimensions whether the operand has it. `triangle` is
    in the product's own terms: A's is over (rows, depth), B's over (depth, columns).
    """

    ref: Ref
    along: bool
    spans: tuple[bool, ...] = ()
    triangle: Triangle | None = None


@dataclass(frozen=True)
class Offset:
    """What an anchor adds to its product, times `factor`, and along what it varies."""

    ref: Ref
    layout: Literal["element", "row", "column", "one"]
    factor: float = 1.0


@dataclass(frozen=True)
class Contraction:
    """result[batch, i, j] = scale * sum over k of a[batch, i, k] b[batch, k, j] + offset.

    `dims` are the sizes of the result's dimensions; `batch` those of the groups of batch
    dimensions, outermost first. `anchor` is the product's call; `nodes` are all that are computed,
    the last of which makes the result. `diagonal` says which operand is a diagonal matrix, of which
    `ref` is the diagonal.
    """

    anchor: str
    nodes: tuple[str, ...]
    a: Operand
    b: Operand
    rows: Extent
    columns: Extent
    depth: Extent
    batch: tuple[Extent, ...]
    dims: tuple[Extent, ...]
    checks: tuple[Check, ...] = ()
    scale: float = 1.0
    offset: Offset | None = None
    keeps: Triangle | None = None
    diagonal: Literal["a", "b"] | None = None

    @property
    def name(self) -> str:
        """The call that makes the result."""
        return self.nodes[-1]

    @property
    def matrices(self) -> int:
        """How many products there are, at the traced sizes."""
        return prod(one.traced for one in self.batch)

    @property
    def symmetric(self) -> bool:
        """Whether the product is a matrix times its own transpose."""
        plain = self.a.triangle is None and self.b.triangle is None and self.keeps is None
        own = self.scale == 1.0 and self.offset is None and self.diagonal is None
        return plain and own and self.a == self.b and self.rows == self.columns

    @property
    def flops(self) -> int:
        """Multiply-adds that are needed, as two each: half of them where a half is known."""
        m, n, k = self.rows.traced, self.columns.traced, self.depth.traced
        if self.diagonal:
            return 0
        share = 1.0
        for triangle in (self.a.triangle, self.b.triangle, self.keeps):
            share *= 0.5 if triangle is not None and abs(triangle.diagonal) < min(m, n) // 2 else 1
        return round(2 * self.matrices * m * n * k * (0.5 if self.symmetric else share))


@dataclass(frozen=True)
class Seen:
    """A value traced back through transpositions and triangles to the tensor that lies in memory.

    `views` are the calls passed over, the anchor's own argument first.
    """

    ref: Ref
    flipped: bool = False
    triangle: Triangle | None = None
    views: tuple[str, ...] = ()


def see(graph: OpGraph, ref: Ref) -> Seen:
    """Follow an argument of at least two dimensions back to what lies in memory."""
    seen = Seen(ref)
    while ref.index is None and (node := graph.by_name[ref.ref]).kind == "call":
        source = node.args[0] if node.args else None
        if not isinstance(source, Ref) or not _is_floating(graph, source):
            break
        rank = len(node.spec.shape) if not isinstance(node.result, tuple) else 0
        triangle = triangle_of(node)
        if rank >= 2 and _swaps_last(node, rank):
            seen = Seen(source, not seen.flipped, seen.triangle, (*seen.views, node.name))
        elif rank >= 2 and triangle is not None and seen.triangle is None:
            kept = triangle.flipped() if seen.flipped else triangle
            seen = Seen(source, seen.flipped, kept, (*seen.views, node.name))
        else:
            break
        ref = source
    return seen


def triangle_of(node: Node) -> Triangle | None:
    """Which triangle a call keeps, None where it is not such a call."""
    if node.target not in ("aten.tril.default", "aten.triu.default"):
        return None
    diagonal = node.args[1] if len(node.args) > 1 else node.kwargs.get("diagonal", 0)
    return Triangle("tril" in node.target, int(str(diagonal)))


def _is_floating(graph: OpGraph, ref: Ref) -> bool:
    return graph.spec_of(ref).dtype in ("float32", "float16", "bfloat16")


def _swaps_last(node: Node, rank: int) -> bool:
    name = node.target.split(".")[1]
    if name in ("t", "mT", "numpy_T"):
        return rank == 2 or name == "mT"
    numbers = node.args[1:]
    if name == "transpose":
        return {int(str(n)) % rank for n in numbers} == {rank - 1, rank - 2}
    if name == "permute" and isinstance(numbers[0], list):
        order = [int(str(n)) % rank for n in numbers[0]]
        return order == [*range(rank - 2), rank - 1, rank - 2]
    return False


def extent(graph: OpGraph, ref: Ref, dim: int) -> Extent:
    """One dimension's size of a tensor."""
    return Extent(f"{variable(ref)}.shape[{dim}]", graph.spec_of(ref).shape[dim])


def same(left: Extent, right: Extent, what: str) -> tuple[Check, ...]:
    """A check that two sizes are equal; none where they are the same expression."""
    if left.text == right.text:
        return ()
    return (Check(left=left.text, right=right.text, sentence=what),)
