"""Einsum equations that are one matrix product, batched or not, without moving any element."""

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.matmul.contraction import Contraction, Extent, Operand, extent, same
from knowledge.program import Check


def from_einsum(graph: OpGraph, node: Node) -> Contraction | str:
    """The product that a two-operand einsum is, or why it is none."""
    equation, operands = node.args[0], node.args[1]
    refs = [ref for ref in operands if isinstance(ref, Ref)] if isinstance(operands, list) else []
    text = str(equation).replace(" ", "")
    terms, arrow, result = text.partition("->")
    letters = terms.split(",")
    if not arrow or len(refs) != 2 or len(letters) != 2 or "." in text:
        return f"the equation {text} is not one of two operands with a plain result"
    if any(len(set(term)) != len(term) for term in (*letters, result)):
        return f"a letter repeats within an operand of {text}"
    # The result's rows come from one operand, its columns from the other.
    for first, second in ((0, 1), (1, 0)):
        found = _split(letters[first], letters[second], result)
        if found is not None:
            return _contraction(graph, node, (refs[first], refs[second]),
                                (letters[first], letters[second]), found)  # fmt: skip
    return f"the operands of {text} would have to be transposed in memory"


def _split(a: str, b: str, result: str) -> tuple[str, str, str, str] | None:
    """The letters of batch, rows, columns and depth, where each group lies together, in order."""
    batch = "".join(c for c in result if c in a and c in b)
    rows = "".join(c for c in result if c in a and c not in b)
    columns = "".join(c for c in result if c in b and c not in a)
    depth = "".join(c for c in a if c not in result)
    fits = (
        result == batch + rows + columns
        and depth != ""
        and a in (batch + rows + depth, batch + depth + rows)
        and b in (batch + columns + depth, batch + depth + columns)
    )
    return (batch, rows, columns, depth) if fits else None


def _contraction(
    graph: OpGraph,
    node: Node,
    refs: tuple[Ref, Ref],
    letters: tuple[str, str],
    groups: tuple[str, str, str, str],
) -> Contraction | str:
    sizes: dict[str, Extent] = {}
    checks: list[Check] = []
    for ref, term in zip(refs, letters, strict=True):
        for dim, letter in enumerate(term):
            size = extent(graph, ref, dim)
            if sizes.setdefault(letter, size).traced != size.traced:
                return f"a dimension of {node.name} is broadcast"
            checks += same(size, sizes[letter], f"the operands of {node.name} do not go together")
    batch, rows, columns, depth = groups
    extents = [Extent.product(tuple(sizes[c] for c in group)) for group in groups]
    spans = (True,) if batch else ()
    return Contraction(
        anchor=node.name, nodes=(node.name,),
        a=Operand(refs[0], letters[0].endswith(depth), spans),
        b=Operand(refs[1], letters[1].endswith(depth), spans),
        rows=extents[1], columns=extents[2], depth=extents[3],
        batch=(extents[0],) if batch else (),
        dims=tuple(sizes[c] for c in batch + rows + columns),
        checks=tuple(checks),
    )  # fmt: skip
