"""Runs attention in one pass over the keys, with no matrix of scores in memory."""

from dataclasses import replace

from knowledge.loops.cost import Machine, moved_mb, program_ms
from knowledge.opgraph import OpGraph, Ref
from knowledge.pattern import Parameter, Proposal, Refusal, Situation, Step
from knowledge.patterns.attention import triton
from knowledge.patterns.attention.code import SIZES, source
from knowledge.patterns.attention.match import Anchor, find_anchors
from knowledge.patterns.attention.problem import (
    checks,
    described,
    flops,
    result_shape,
    scores,
    sizes,
)
from knowledge.program import Kernel, Program, Written

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
    if program.backend == "triton":
        return triton.propose(program, situation)
    anchors, reasons = find_anchors(program)
    if not anchors:
        told = "; ".join(dict.fromkeys(reasons)) or "there is none in the graph"
        return Refusal(pattern=NAME, reason=f"No attention can be taken over: {told}.")
    first: dict[str, Parameter] = {"key_tiles": KEY_TILES[0], "only": ""}
    made = apply(program, Step(pattern=NAME, parameters=first))
    machine = Machine.of(situation)
    before, after = program_ms(program, machine), program_ms(made, machine)
    done = sum(kernel.flops for kernel in made.kernels[len(program.kernels) :])
    arithmetic = (
        f"{done / 1e9:.2f} GFLOP in products at {EFFICIENCY:.0%} of {situation.peak_gflops:.0f} "
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
    if program.backend == "triton":
        return triton.apply(program, step)
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
    reads = tuple(laid.ref for laid in anchor.operands)
    written = Written(
        ref=Ref(ref=anchor.result.name), shape=result_shape(anchor), spec=anchor.result.spec
    )
    given = sizes(anchor)
    strides = [size.name for size in given[len(SIZES) :]]
    return Kernel(
        name=name,
        source=source(replace(anchor.form, key_tiles=key_tiles), name, strides),
        signature="p" * (len(reads) + 1) + "i" * len(given),
        nodes=anchor.nodes,
        reads=reads,
        writes=(written,),
        strided=reads,
        sizes=given,
        checks=checks(graph, anchor),
        note=f"attention, {described(anchor.form)}",
        moved_bytes=sum(graph.spec_of(ref).nbytes for ref in reads) + written.spec.nbytes,
        operations=SCORE_OPERATIONS * scores(anchor)
        + PACKING_OPERATIONS * sum(graph.spec_of(ref).numel for ref in reads[:3]),
        flops=flops(anchor),
        efficiency=EFFICIENCY,
    )
