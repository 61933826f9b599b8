"""Runs attention in one pass over the keys, with no matrix of scores in memory."""

from dataclasses import replace

from knowledge.loops.cost import Machine, moved_mb, program_ms
from knowledge.opgraph import OpGraph, Ref
from knowledge.pattern import Parameter, Proposal, Refusal, Situation, Step
from knowledge.patterns.attention.code import source
from knowledge.patterns.attention.match import Anchor, find_anchors
from knowledge.program import Check, Kernel, Program, Size, Written, variable

NAME = "attention"
KEY_TILES = (8, 16)
# Of the peak, that both products together reach; what else a score costs is counted in operations:
# an exponential, a maximum, a sum.
EFFICIENCY, SCORE_OPERATIONS = 0.85, 22
# What packing an element of the operands, or writing one of the result, costs in operations.
PACKING_OPERATIONS = 60
LONG_STEP = 0.98


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """All attentions in kernels of their own; then with longer steps over the keys."""
    anchors, reasons = find_anchors(program)
    if not anchors:
        told = "; ".join(dict.fromkeys(reasons)) or "there is none in the graph"
        return Refusal(pattern=NAME, reason=f"No attention can be taken over: {told}.")
    first: dict[str, Parameter] = {"key_tiles": KEY_TILES[0], "only": ""}
    made = apply(program, Step(pattern=NAME, parameters=first))
    machine = Machine.of(situation)
    before, after = program_ms(program, machine), program_ms(made, machine)
    flops = sum(kernel.flops for kernel in made.kernels[len(program.kernels) :])
    arithmetic = (
        f"{flops / 1e9:.2f} GFLOP in products at {EFFICIENCY:.0%} of {situation.peak_gflops:.0f} "
        f"GFLOP/s; {moved_mb(made):.1f} MB moved in place of {moved_mb(program):.1f}: "
        f"{after:.3f} ms. Before: {before:.3f} ms, so {before / after:.2f}x."
    )
    return [
        Proposal(
            step=Step(pattern=NAME, parameters={**first, "key_tiles": tiles}),
            title=f"attention in one pass over the keys, {tiles} tiles of them a step",
            speedup=before / after * (1.0 if tiles == KEY_TILES[0] else LONG_STEP),
            arithmetic=arithmetic,
        )
        for tiles in KEY_TILES
    ]


def apply(program: Program, step: Step) -> Program:
    """The program with its attentions, or those named by `only`, in kernels.

    An attention goes by the name of its library call, or of its last product.

    Raises:
        ValueError: there is none that can be taken, or `key_tiles` is unknown.
    """
    tiles = step.parameters.get("key_tiles", KEY_TILES[0])
    if tiles not in KEY_TILES:
        raise ValueError(f"attention: unknown key_tiles {tiles!r}; known: 8, 16")
    anchors = [a for a in find_anchors(program)[0] if not step.only or step.only & set(a.nodes)]
    if not anchors:
        raise ValueError("attention: there is none that it can take")
    kernels = tuple(make_kernel(program.graph, anchor, int(tiles)) for anchor in anchors)
    count = f"{len(kernels)} attentions" if len(kernels) != 1 else "attention"
    words = f"{count} in one pass over the keys"
    return program.changed(kernels=(*program.kernels, *kernels), steps=(*program.steps, words))


def make_kernel(graph: OpGraph, anchor: Anchor, key_tiles: int) -> Kernel:
    """The kernel of one attention; queries, keys, values and mask are read as they lie."""
    name = f"attention_{anchor.result.name}"
    reads = (anchor.q, anchor.k, anchor.v, *([anchor.mask] if anchor.mask else []))
    written = Written(
        ref=Ref(ref=anchor.result.name), shape=_result_shape(graph, anchor),
        spec=anchor.result.spec,
    )  # fmt: skip
    sizes = _sizes(graph, anchor)
    return Kernel(
        name=name,
        source=source(
            replace(anchor.form, key_tiles=key_tiles, dtype=graph.spec_of(anchor.q).dtype), name
        ),
        signature="p" * (len(reads) + 1) + "i" * len(sizes),
        nodes=anchor.nodes,
        reads=reads,
        writes=(written,),
        strided=reads,
        sizes=sizes,
        checks=_checks(graph, anchor),
        note=f"attention, {_MASKS[anchor.form.mask]}",
        moved_bytes=sum(graph.spec_of(ref).nbytes for ref in reads) + written.spec.nbytes,
        operations=SCORE_OPERATIONS * _scores(graph, anchor)
        + PACKING_OPERATIONS * sum(graph.spec_of(ref).numel for ref in reads[:3]),
        flops=_flops(graph, anchor),
        efficiency=EFFICIENCY,
    )


_MASKS = {
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


def _sizes(graph: OpGraph, anchor: Anchor) -> tuple[Size, ...]:
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


def _checks(graph: OpGraph, anchor: Anchor) -> tuple[Check, ...]:
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
    scores = [dims["heads"], dims["queries"], dims["keys"]]
    scores = [dims["batches"], *scores] if rank == 4 else scores
    fits = [
        f"{mask}.shape[{dim}] in (1, {size})"
        for dim, size in zip(range(count - 1, -1, -1), reversed(scores), strict=False)
    ]
    return Check(
        left=f"({' and '.join(fits) or 'True'})", right="True",
        sentence=f"the mask {mask} can't be broadcast to the scores",
    )  # fmt: skip


def _shares_heads(graph: OpGraph, anchor: Anchor) -> bool:
    return graph.spec_of(anchor.q).shape[-3] != graph.spec_of(anchor.k).shape[-3]


def _result_shape(graph: OpGraph, anchor: Anchor) -> str:
    dims, rank = _dims(graph, anchor)
    inner = [dims["heads"], dims["queries"]]
    if anchor.form.rows_first:
        inner.reverse()
    batch = [dims["batches"]] if rank == 4 else []
    return f"({', '.join([*batch, *inner, dims['width']])})"


def _scores(graph: OpGraph, anchor: Anchor) -> int:
    """Scores that are computed at the traced sizes: of a causal attention about half."""
    q, k = graph.spec_of(anchor.q), graph.spec_of(anchor.k)
    keys = k.shape[-1] if anchor.keys_are_columns else k.shape[-2]
    seen = q.numel // q.shape[-1] * keys
    return seen // 2 if anchor.form.mask == "causal" else seen


def _flops(graph: OpGraph, anchor: Anchor) -> int:
    widths = graph.spec_of(anchor.q).shape[-1] + graph.spec_of(anchor.v).shape[-1]
    return 2 * _scores(graph, anchor) * widths
