"""What a CPU kernel spends its time on that neither memory nor page faults hold back."""

from typing import NamedTuple

from agents.playbook.readings import Finding
from knowledge.opgraph import Node, OpGraph
from knowledge.patterns.algebra.edit import operator
from tools.facts import Roofline

# An exp takes about as long as so many operations of the peak (knowledge/loops/cost.py).
COSTLY_OPERATIONS = 13
COSTLY = frozenset({
    "acos", "asin", "atan", "atan2", "celu", "cos", "cosh", "cross_entropy_loss", "elu", "erf",
    "erfc", "exp", "exp2", "expm1", "gelu", "log", "log10", "log1p", "log2", "log_sigmoid",
    "log_softmax", "logaddexp", "logsumexp", "mish", "selu", "sigmoid", "silu", "sin", "sinh",
    "softmax", "softplus", "tan", "tanh",
})  # fmt: skip
REDUCTIONS = frozenset({
    "all", "amax", "amin", "any", "argmax", "argmin", "cross_entropy_loss", "cumsum",
    "group_norm", "layer_norm", "log_softmax", "logsumexp", "max", "mean", "min", "norm",
    "prod", "rms_norm", "softmax", "std", "sum", "var", "var_mean", "linalg_vector_norm",
})  # fmt: skip
# Those that sweep over their row more than once by themselves.
SWEEPING = frozenset({
    "cross_entropy_loss", "group_norm", "layer_norm", "log_softmax", "logsumexp", "rms_norm",
    "softmax", "std", "var", "var_mean",
})  # fmt: skip
PRODUCTS = frozenset({
    "addmm", "baddbmm", "bilinear", "bmm", "conv1d", "conv2d", "conv3d", "conv_transpose2d",
    "einsum", "linear", "matmul", "mm", "scaled_dot_product_attention",
})  # fmt: skip


class _Count(NamedTuple):
    costly: int
    names: tuple[str, ...]
    reductions: int
    products: bool


def spent_on(graph: OpGraph | None, roof: Roofline, median_ms: float) -> Finding:
    """Bound by its own instructions: which those are, how long they need, and what to do.

    Args:
        graph: of the op; None where it could not be traced.
        roof: whose peak says how long the costly ones need.
        median_ms: what the kernel takes.
    """
    count = _count(graph)
    evidence: list[str] = []
    moves: list[str] = []
    if count.costly:
        needed_ms = count.costly * COSTLY_OPERATIONS / (roof.peak_gflops * 1e6)
        evidence.append(
            f"{count.costly / 1e6:.3g} million of {', '.join(count.names)} need about "
            f"{needed_ms:.3g} ms as vector code, {needed_ms / median_ms:.0%} of the time"
        )
        moves.append("cheaper transcendental functions (inline polynomials)")
    if count.products:
        moves.append("products in tiles that stay in registers, on panels that stay in L2")
    if count.reductions > 1:
        moves.append("fewer sweeps over the row")
    if count.reductions:
        moves.append("more independent accumulators")
    if len(moves) < 2:
        moves.append("vector code in the innermost loop: no branches, neighbours in memory")
    return Finding("compute", "", tuple(evidence), tuple(moves[:3]))


def _count(graph: OpGraph | None) -> _Count:
    if graph is None:
        return _Count(0, (), 0, False)
    named = [(operator(node).strip("_"), node) for node in graph.calls]
    costly = [(name, _elements(graph, node)) for name, node in named if name in COSTLY]
    return _Count(
        costly=sum(elements for _, elements in costly),
        names=tuple(dict.fromkeys(name for name, _ in costly)),
        reductions=sum((name in REDUCTIONS) + (name in SWEEPING) for name, _ in named),
        products=any(name in PRODUCTS for name, _ in named),
    )


def _elements(graph: OpGraph, node: Node) -> int:
    """Of what it reads first: a loss reads rows and makes a number."""
    return graph.spec_of(node.refs[0]).numel if node.refs else 0
