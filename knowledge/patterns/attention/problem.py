"""The sizes of an attention as Python expressions, what must hold of them, and what they cost."""

from knowledge.opgraph import OpGraph, Ref
from knowledge.patterns.attention.match import Anchor
from knowledge.program import Check, Size, variable

MASKS = {
    "none": "every key seen by every query",
    "causal": "later keys hidden",
    "add": "a mask added to the scores",
    "fill": "scores filled where a mask says so",
    "keep": "keys kept where a mask says so",
}


def _dims(graph: OpGraph, anchor: Anchor) -> tuple[dict[str, str], int]:
    """Python for each size of the problem, and the operands' number of dimensions."""
    rank = len(graph.spec_of(anchor.q).shape)
    q, k, v = (f"{variable(ref)}.shape" for ref in (anchor.q, anchor.k, anchor.v))
    keys = f"{k}[{rank - 1 if anchor.keys_are_columns else rank - 2}]"
    return {
        "batches": f"{q}[0]" if rank == 4 else "1",
        "heads": f"{q}[{rank - 3}]",
        "kv_heads": f"{k}[{rank - 3}]",
        "queries": f"{q}[{rank - 2}]",
        "keys": keys,
        "depth": f"{q}[{rank - 1}]",
        "width": f"{v}[{rank - 1}]",
    }, rank


def sizes(graph: OpGraph, anchor: Anchor) -> tuple[Size, ...]:
    """The problem's sizes, then four strides for each operand: batch, head, row, column."""
    dims, rank = _dims(graph, anchor)
    found = [Size(name=name, expression=expression) for name, expression in dims.items()]
    operands = [("q", anchor.q, False), ("k", anchor.k, anchor.keys_are_columns)]
    for name, ref, turned in (*operands, ("v", anchor.v, False)):
        order = [rank - 4, rank - 3, rank - 2, rank - 1]
        if turned:
            order[2:] = [rank - 1, rank - 2]
        strides = [f"{variable(ref)}.stride({dim})" if dim >= 0 else "0" for dim in order]
        found += _named(name, strides)
    if anchor.mask is not None:
        found += _named("mask", _mask_strides(graph, anchor.mask))
    return tuple(found)


def _named(operand: str, strides: list[str]) -> list[Size]:
    names = ("batch", "head", "row", "column")
    return [
        Size(name=f"{operand}_{name}", expression=stride)
        for name, stride in zip(names, strides, strict=True)
    ]


def _mask_strides(graph: OpGraph, mask: Ref) -> list[str]:
    """Python for the mask's strides: 0 along what it is broadcast over."""
    name, rank = variable(mask), len(graph.spec_of(mask).shape)
    strides = []
    for dim in range(rank - 4, rank):
        found = f"({name}.stride({dim}) if {name}.shape[{dim}] != 1 else 0)"
        strides.append(found if dim >= 0 else "0")
    return strides


def checks(graph: OpGraph, anchor: Anchor) -> tuple[Check, ...]:
    """That keys, values and mask go with the queries, whatever the sizes are by then."""
    dims, rank = _dims(graph, anchor)
    q, k, v = (variable(ref) for ref in (anchor.q, anchor.k, anchor.v))
    batch = f"{dims['batches']}, " if rank == 4 else ""
    tail = [dims["depth"], dims["keys"]]
    tail = tail if anchor.keys_are_columns else tail[::-1]
    several = f"{k}.shape[{rank - 3}]" if _shares_heads(graph, anchor) else dims["heads"]
    found = [
        Check(
            left=f"{k}.shape", right=f"torch.Size(({batch}{several}, {', '.join(tail)}))",
            sentence=f"the keys {k} do not go with the queries {q}",
        ),
        Check(
            left=f"{v}.shape",
            right=f"torch.Size(({batch}{several}, {dims['keys']}, {dims['width']}))",
            sentence=f"the values {v} do not go with the keys {k}",
        ),
    ]  # fmt: skip
    if _shares_heads(graph, anchor):
        found.append(
            Check(
                left=f"{dims['heads']} % {dims['kv_heads']}", right="0",
                sentence=f"the heads of {q} are no multiple of those of {k}",
            )
        )  # fmt: skip
    if anchor.mask is not None:
        found.append(_mask_check(graph, anchor, dims, rank))
    return tuple(found)


def _mask_check(graph: OpGraph, anchor: Anchor, dims: dict[str, str], rank: int) -> Check:
    assert anchor.mask is not None
    mask, count = variable(anchor.mask), len(graph.spec_of(anchor.mask).shape)
    whole = [dims["heads"], dims["queries"], dims["keys"]]
    whole = [dims["batches"], *whole] if rank == 4 else whole
    fits = [
        f"{mask}.shape[{dim}] in (1, {size})"
        for dim, size in zip(range(count - 1, -1, -1), reversed(whole), strict=False)
    ]
    return Check(
        left=f"({' and '.join(fits) or 'True'})", right="True",
        sentence=f"the mask {mask} can't be broadcast to the scores",
    )  # fmt: skip


def _shares_heads(graph: OpGraph, anchor: Anchor) -> bool:
    return graph.spec_of(anchor.q).shape[-3] != graph.spec_of(anchor.k).shape[-3]


def result_shape(graph: OpGraph, anchor: Anchor) -> str:
    """Python for the shape of what is written."""
    dims, rank = _dims(graph, anchor)
    inner = [dims["heads"], dims["queries"]]
    if anchor.form.rows_first:
        inner.reverse()
    batch = [dims["batches"]] if rank == 4 else []
    return f"({', '.join([*batch, *inner, dims['width']])})"


def scores(graph: OpGraph, anchor: Anchor) -> int:
    """Scores that are computed at the traced sizes: of a causal attention about half."""
    q, k = graph.spec_of(anchor.q), graph.spec_of(anchor.k)
    keys = k.shape[-1] if anchor.keys_are_columns else k.shape[-2]
    seen = q.numel // q.shape[-1] * keys
    return seen // 2 if anchor.form.mask == "causal" else seen


def flops(graph: OpGraph, anchor: Anchor) -> int:
    """Multiply-adds of both products, as two each."""
    widths = graph.spec_of(anchor.q).shape[-1] + graph.spec_of(anchor.v).shape[-1]
    return 2 * scores(graph, anchor) * widths
