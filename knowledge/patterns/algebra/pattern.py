"""Exact algebra on the graph: every rewrite that matches is applied, until none does."""

from collections.abc import Callable

from knowledge.loops.cost import Machine, moved_mb, program_cost, program_ms
from knowledge.opgraph import Node, OpGraph
from knowledge.pattern import Proposal, Refusal, Situation, Step
from knowledge.patterns.algebra.cells import gru_cell, lstm_cell
from knowledge.patterns.algebra.convolutions import (
    pooled_convolution,
    pooled_linear,
    product_of_products,
    sum_of_convolution,
)
from knowledge.patterns.algebra.distances import distances_by_product
from knowledge.patterns.algebra.loops import odd_end, parts_assigned, steps_at_once
from knowledge.patterns.algebra.normalised import (
    is_independent,
    mean_of_normalised,
    sum_of_softmax,
)
from knowledge.patterns.algebra.pools import mean_of_cells
from knowledge.patterns.algebra.ranges import is_constant_output, needless_clamp
from knowledge.patterns.algebra.recurrences import recurrence
from knowledge.patterns.algebra.rewrites import (
    Rewrite,
    Rewritten,
    Unfit,
    dead_code,
    inverse_views,
    neutral,
    repeated_call,
    scalar_chain,
    scaling_out_of_sum,
    size_one_reduction,
    size_one_softmax,
    sum_of_linear,
    sum_of_matmul,
)
from knowledge.patterns.algebra.scores import (
    einsum_of_attention,
    learned_temperature,
    two_fills,
    two_masks,
)
from knowledge.patterns.algebra.stacks import stack_of_calls, stack_of_parts
from knowledge.program import Program

NAME = "algebra"
CONSTANT = "output is constant"
REWRITES: tuple[Rewrite, ...] = (
    dead_code,
    repeated_call,
    neutral,
    inverse_views,
    size_one_reduction,
    size_one_softmax,
    needless_clamp,
    scalar_chain,
    scaling_out_of_sum,
    sum_of_linear,
    sum_of_matmul,
    mean_of_normalised,
    sum_of_softmax,
    sum_of_convolution,
    pooled_convolution,
    pooled_linear,
    product_of_products,
    mean_of_cells,
    einsum_of_attention,
    two_fills,
    two_masks,
    learned_temperature,
    distances_by_product,
    parts_assigned,
    steps_at_once,
    odd_end,
    stack_of_parts,
    stack_of_calls,
    gru_cell,
    lstm_cell,
)
# These look at the whole graph, and go first: what they find, the others would take apart.
WHOLE: tuple[Callable[[OpGraph], Rewritten | None], ...] = (recurrence,)
# Every rewrite makes the graph smaller or cheaper; this only bounds the damage of one that doesn't.
MOST = 1000


def rewrite(graph: OpGraph) -> tuple[OpGraph, list[str], list[str]]:
    """The graph with all rewrites applied, what was done, and what looked right but was not."""
    done: list[str] = []
    unfit: dict[str, None] = {}
    before = -1
    while before < len(done) < MOST:
        before = len(done)
        for one in WHOLE:
            while (step := one(graph)) is not None and len(done) < MOST:
                graph = step.graph
                done.append(step.words)
        graph = _swept(graph, done, unfit)
    return graph, done, list(unfit)


def _swept(graph: OpGraph, done: list[str], unfit: dict[str, None]) -> OpGraph:
    """The graph after one look at each call, in their order; a change is looked at again.

    To begin at the first call again after each change would take the square of a long net's time.
    """
    at = 0
    while at < len(graph.nodes) and len(done) < MOST:
        node = graph.nodes[at]
        step = _found(graph, node, unfit) if node.kind == "call" else None
        if step is None:
            at += 1
            continue
        at = _first_change(graph, step.graph)
        graph = step.graph
        done.append(step.words)
    return graph


def _first_change(before: OpGraph, after: OpGraph) -> int:
    """Where the nodes of two graphs begin to differ."""
    pairs = enumerate(zip(before.nodes, after.nodes, strict=False))
    end = min(len(before.nodes), len(after.nodes))
    return next((at for at, (one, other) in pairs if one is not other), end)


def _found(graph: OpGraph, node: Node, unfit: dict[str, None]) -> Rewritten | None:
    """The first rewrite that matches a call."""
    for one in REWRITES:
        found = one(graph, node)
        if isinstance(found, Rewritten):
            return found
        if isinstance(found, Unfit):
            unfit[f"{node.name}: {found.why}"] = None
    return None


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """One proposal that applies every rewrite that matches."""
    if program.kernels:
        return Refusal(pattern=NAME, reason="Algebra comes before loops are fused.")
    graph, done, unfit = rewrite(program.graph)
    if not done:
        told = f" Considered: {'; '.join(unfit)[:300]}." if unfit else ""
        return Refusal(pattern=NAME, reason=f"No rewrite matches.{told}")
    machine = Machine.of(situation)
    after = program.changed(graph=graph)
    before, cost = program_ms(program, machine), program_ms(after, machine)
    speedup = max(before / cost, 1.0)
    arithmetic = (
        f"{_list(done)}. Work: {_flops(program) / 1e9:.3f} GFLOP and {moved_mb(program):.1f} MB "
        f"before, {_flops(after) / 1e9:.3f} GFLOP and {moved_mb(after):.1f} MB after; at "
        f"{situation.peak_gflops:.0f} GFLOP/s and {situation.bandwidth_gbps:.1f} GB/s {cost:.3f} "
        f"ms against {before:.3f} ms: {speedup:.1f}x."
    )
    return [
        Proposal(
            step=Step(pattern=NAME),
            title=f"algebra: {_list(done)}"[:160],
            speedup=speedup,
            arithmetic=arithmetic,
            labels=_labels(program.graph),
        )
    ]


def apply(program: Program, step: Step) -> Program:
    """The program with every matching rewrite applied to its graph.

    Raises:
        ValueError: none matches, or loops are fused already.
    """
    if program.kernels:
        raise ValueError("algebra: comes before loops are fused")
    graph, done, _ = rewrite(program.graph)
    if not done:
        raise ValueError("algebra: no rewrite matches")
    labels = tuple(dict.fromkeys((*program.labels, *_labels(program.graph))))
    steps = (*program.steps, _list(done))
    return program.changed(graph=graph, labels=labels, steps=steps)


def _labels(graph: OpGraph) -> tuple[str, ...]:
    return (CONSTANT,) if is_constant_output(graph) or is_independent(graph) else ()


def _list(done: list[str]) -> str:
    counted = {words: done.count(words) for words in done}
    return "; ".join(f"{words} (x{n})" if n > 1 else words for words, n in counted.items())


def _flops(program: Program) -> int:
    return sum(cost.flops for cost in program_cost(program))
