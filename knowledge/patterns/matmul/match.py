"""Finds matrix products in a graph, and puts each into the form that the kernels compute."""

from dataclasses import replace
from typing import Any

from knowledge.loops.cost import PRODUCTS
from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.matmul.contraction import (
    Contraction,
    Extent,
    Offset,
    Operand,
    Seen,
    extent,
    same,
    see,
    triangle_of,
)
from knowledge.patterns.matmul.equation import from_einsum
from knowledge.program import Check, Program, variable
from knowledge.tiles import FLOATS

ANCHORS = (*PRODUCTS, "einsum")


def is_anchor(node: Node) -> bool:
    """Whether a call is a matrix product."""
    parts = node.target.split(".")
    return node.kind == "call" and len(parts) == 3 and parts[0] == "aten" and parts[1] in ANCHORS


def find_product(
    program: Program, node: Node, kinds: tuple[str, ...] = FLOATS
) -> Contraction | str:
    """The product that an anchor computes, or one sentence on why no kernel takes it.

    `kinds` are the types that the kernels multiply.
    """
    graph = program.graph
    specs = [node.spec, *(graph.spec_of(ref) for ref in node.refs)]
    dtypes = {spec.dtype for spec in specs}
    if len(dtypes) > 1 or not dtypes <= set(kinds):
        told = " and ".join(sorted(dtypes))
        return f"{node.name} is in {told}: the kernels multiply numbers of one floating type alone"
    if any(spec.numel == 0 for spec in specs):
        return f"{node.name} has an empty operand"
    name = node.target.split(".")[1]
    if name == "einsum":
        found = from_einsum(graph, node)
    elif name in ("addmm", "baddbmm", "addmv"):
        found = _with_offset(graph, node)
    else:
        found = _plain(graph, node, name)
    if isinstance(found, str):
        return found
    if found.diagonal and (found.offset or found.scale != 1):
        return f"{node.name} adds to a product with a diagonal matrix, or scales it"
    found = replace(found, dtype=node.spec.dtype)
    return _with_views(program, _with_triangle(program, found))


def _plain(graph: OpGraph, node: Node, name: str) -> Contraction | str:
    left, right = node.args[0], node.args[1]
    assert isinstance(left, Ref)
    assert isinstance(right, Ref)
    if name != "linear":
        return _multiply(graph, node, left, right)
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    if len(graph.spec_of(right).shape) != 2:
        return f"the weight of {node.name} is a vector"
    found = _multiply(graph, node, left, right, transposed=True)
    if not isinstance(found, Contraction) or not isinstance(bias, Ref):
        return found
    checks = same(extent(graph, bias, 0), found.columns, "the bias does not go with the weight")
    return replace(found, offset=Offset(bias, "column"), checks=(*found.checks, *checks))


def _with_offset(graph: OpGraph, node: Node) -> Contraction | str:
    """The product times alpha, and beta times an input; with beta 0 the input is not even read."""
    given, left, right = node.args[:3]
    assert isinstance(given, Ref)
    assert isinstance(left, Ref)
    assert isinstance(right, Ref)
    numbers: dict[str, Any] = {"beta": 1, "alpha": 1, **node.kwargs}
    found = _multiply(graph, node, left, right)
    if isinstance(found, str):
        return found
    found = replace(found, scale=float(numbers["alpha"]))
    beta, shape = float(numbers["beta"]), graph.spec_of(given).shape
    if beta == 0:
        return found
    sizes = (*(one.traced for one in found.dims),)
    if node.target.startswith("aten.addmv"):
        layout = "one" if shape in ((), (1,)) else "row"
    elif shape == sizes:
        layout = "element"
    elif all(size == 1 for size in shape):
        layout = "one"
    elif all(size == 1 for size in shape[:-1]):
        layout = "column"
    elif shape == (sizes[-2], 1) and len(sizes) == 2:
        layout = "row"
    else:
        return f"what {node.name} adds is spread in an unusual way"
    name = variable(given)
    wanted = {
        "element": f"torch.Size({_tuple(found.dims)})", "one": f"torch.Size({tuple(shape)})",
        "column": f"torch.Size({(1,) * (len(shape) - 1)} + ({found.columns.text},))",
        "row": f"torch.Size(({found.rows.text},{' 1' if len(shape) > 1 else ''}))",
    }[layout]  # fmt: skip
    check = Check(
        left=f"{name}.shape", right=wanted,
        sentence=f"{name} does not go with the product; its shape was traced as {list(shape)}",
    )  # fmt: skip
    offset = Offset(given, layout, beta)  # type: ignore[arg-type]
    return replace(found, offset=offset, checks=(*found.checks, check))


def _tuple(extents: tuple[Extent, ...]) -> str:
    return f"({', '.join(one.text for one in extents)}{',' if len(extents) == 1 else ''})"


def _multiply(
    graph: OpGraph, node: Node, left: Ref, right: Ref, transposed: bool = False
) -> Contraction | str:
    """`left` times `right`, or times the transposed `right`; either may be a vector."""
    ranks = len(graph.spec_of(left).shape), len(graph.spec_of(right).shape)
    a = see(graph, left) if ranks[0] > 1 else Seen(left)
    b = see(graph, right) if ranks[1] > 1 else Seen(right)
    if diagonal := _diagonal(graph, node, (left, right), transposed):
        return diagonal
    b_along = ranks[1] == 1 or b.flipped != transposed
    one = Extent("1", 1)
    rows = extent(graph, a.ref, -1 if a.flipped else -2) if ranks[0] > 1 else one
    depth = extent(graph, a.ref, -2 if a.flipped else -1)
    columns = extent(graph, b.ref, -2 if b_along else -1) if ranks[1] > 1 else one
    checks = same(
        extent(graph, b.ref, -1 if b_along else -2), depth,
        f"the operands of {node.name} do not go together",
    )  # fmt: skip
    lead, checked = _batch_dims(
        graph, a.ref if ranks[0] > 2 else None, b.ref if ranks[1] > 2 else None
    )
    dims = [size for size, _, _ in lead]
    dims += ([rows] if ranks[0] > 1 else []) + ([columns] if ranks[1] > 1 else [])
    groups = _grouped(lead)
    if len(groups) == 1 and not groups[0][2] and not a.flipped and not a.triangle:
        # One matrix for the whole batch: the batch's rows are rows of one product.
        rows, groups = Extent.product((groups[0][0], rows)), []
    kept = b.triangle.flipped() if b.triangle and transposed else b.triangle
    return Contraction(
        anchor=node.name, nodes=(*b.views, *a.views, node.name),
        a=Operand(a.ref, not a.flipped, tuple(spans for _, spans, _ in groups), a.triangle),
        b=Operand(b.ref, b_along, tuple(spans for _, _, spans in groups), kept),
        rows=rows, columns=columns, depth=depth, batch=tuple(size for size, _, _ in groups),
        dims=tuple(dims), checks=(*checks, *checked),
    )  # fmt: skip


# A size, whether A has that dimension, and whether B has it.
Spanned = tuple[Extent, bool, bool]


def _batch_dims(
    graph: OpGraph, a: Ref | None, b: Ref | None
) -> tuple[list[Spanned], tuple[Check, ...]]:
    """The batch dimensions of a product of two batches, broadcast as torch does it."""
    shapes = [graph.spec_of(ref).shape[:-2] if ref else () for ref in (a, b)]
    found: list[Spanned] = []
    checks: list[Check] = []
    for back in range(1, max(len(shape) for shape in shapes) + 1):
        dims = [
            extent(graph, ref, len(shape) - back) if ref and back <= len(shape) else None
            for ref, shape in zip((a, b), shapes, strict=True)
        ]
        present = [one for one in dims if one is not None]
        wide = [one for one in present if one.traced != 1] or present
        spans = [one is not None and one in wide for one in dims]
        found.append((wide[0], spans[0], spans[1]))
        sentence = "the batches of a product do not go together"
        for one in present:
            checks += same(one, wide[0] if one in wide else Extent("1", 1), sentence)
    return found[::-1], tuple(checks)


def _grouped(dims: list[Spanned]) -> list[Spanned]:
    """Neighbouring dimensions that the same operands have, taken as one."""
    groups: list[Spanned] = []
    for size, in_a, in_b in dims:
        if groups and groups[-1][1:] == (in_a, in_b):
            groups[-1] = (Extent.product((groups[-1][0], size)), in_a, in_b)
        else:
            groups.append((size, in_a, in_b))
    return groups


def _diagonal(
    graph: OpGraph, node: Node, operands: tuple[Ref, Ref], transposed: bool
) -> Contraction | None:
    """diag(d) B or A diag(d), of plain matrices."""
    if any(len(graph.spec_of(ref).shape) != 2 for ref in operands):
        return None
    for position, ref in enumerate(operands):
        made = graph.by_name[ref.ref]
        source = made.args[0] if made.args else None
        plain = made.target in ("aten.diag.default", "aten.diag_embed.default")
        if not plain or len(made.args) > 1 or made.kwargs or not isinstance(source, Ref):
            continue
        other = operands[1 - position]
        if len(graph.spec_of(source).shape) != 1 or (transposed and position == 0):
            continue
        rows, columns = extent(graph, other, 0), extent(graph, other, 1)
        scaled = columns if position else rows
        check = same(extent(graph, source, 0), scaled, "the diagonal does not go with the matrix")
        refs = (other, source) if position else (source, other)
        return Contraction(
            anchor=node.name, nodes=(made.name, node.name),
            a=Operand(refs[0], True), b=Operand(refs[1], False),
            rows=rows, columns=columns, depth=scaled, batch=(), dims=(rows, columns),
            checks=check, diagonal="b" if position else "a",
        )  # fmt: skip
    return None


def _with_triangle(program: Program, found: Contraction) -> Contraction:
    """The product together with a tril or triu that alone reads it."""
    graph, name = program.graph, found.name
    users = graph.users[name]
    triangle = triangle_of(users[0]) if len(users) == 1 else None
    folded = len(found.dims) < 2 or found.dims[-2] != found.rows
    taken = triangle is not None and users[0].name in program.kernel_of
    if triangle is None or taken or folded or found.diagonal or _is_returned(graph, name):
        return found
    return replace(found, nodes=(*found.nodes, users[0].name), keeps=triangle)


def _with_views(program: Program, found: Contraction) -> Contraction:
    """The product with only those views among its calls that nothing else reads."""
    graph = program.graph
    covered = list(found.nodes)
    for name in found.nodes:
        readers = {user.name for user in graph.users[name]}
        last = name in (found.name, found.anchor)
        if not last and (
            not readers <= set(covered) or _is_returned(graph, name) or name in program.kernel_of
        ):
            covered.remove(name)
    return replace(found, nodes=tuple(covered))


def _is_returned(graph: OpGraph, name: str) -> bool:
    kept = {text.partition("[")[0] for text in graph.mutations.values()}
    return name in kept or any(ref.ref == name for ref in graph.outputs)
