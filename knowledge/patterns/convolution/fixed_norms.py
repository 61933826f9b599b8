"""Writes batch norms with fixed statistics as the pointwise calls they are, so that they fuse."""

from typing import Any

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, operator, replace
from knowledge.program import Program

_FIXED = "_native_batch_norm_legit_no_training"


def norms_apart(program: Program, anchors: tuple[str, ...]) -> Program:
    """The program with every such norm of an anchor's result as differences and products."""
    used = {ref.ref for kernel in program.kernels for ref in kernel.reads}
    for node in program.library_calls:
        source = node.args[0] if node.args else None
        of_anchor = isinstance(source, Ref) and source.index is None and source.ref in anchors
        if operator(node) == _FIXED and of_anchor and node.name not in used:
            program = program.changed(graph=_apart(program.graph, node))
    return program


def _apart(graph: OpGraph, node: Node) -> OpGraph:
    """The graph with one norm written out, unless its statistics are read or its types differ."""
    x, weight, bias, mean, variance, _, epsilon = node.args
    refs = [ref for ref in (x, weight, bias, mean, variance) if isinstance(ref, Ref)]
    types = {graph.spec_of(ref).dtype for ref in refs}
    others = {Ref(ref=node.name, index=index) for index in (1, 2)}
    read = others & {ref for one in graph.nodes for ref in one.refs} or others & set(graph.outputs)
    assert isinstance(x, Ref)
    if read or len(types) > 1:
        return graph
    spec = graph.spec_of(x)
    shape = (1, spec.shape[1], *([1] * (len(spec.shape) - 2)))
    w = Writer(graph)

    def viewed(ref: Any) -> Ref:
        sizes: Any = list(shape)
        return w.call("aten.view.default", (ref, sizes), shape, spec.dtype)

    scale = w.call("aten.add.Tensor", (viewed(variance), epsilon), shape, spec.dtype)
    scale = w.call("aten.rsqrt.default", (scale,), shape, spec.dtype)
    if isinstance(weight, Ref):
        scale = w.call("aten.mul.Tensor", (scale, viewed(weight)), shape, spec.dtype)
    y = w.call("aten.sub.Tensor", (x, viewed(mean)), spec.shape, spec.dtype)
    y = w.call("aten.mul.Tensor", (y, scale), spec.shape, spec.dtype)
    if isinstance(bias, Ref):
        y = w.call("aten.add.Tensor", (y, viewed(bias)), spec.shape, spec.dtype)
    return replace(graph, w, node.name, {Ref(ref=node.name, index=0): y})
