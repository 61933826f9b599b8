"""Writes batch norms with fixed statistics as the pointwise calls they are, so that they fuse."""

from collections.abc import Callable, Sequence

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, operator, replace
from knowledge.program import Program
from knowledge.tiles import HALVES

_FIXED = "_native_batch_norm_legit_no_training"


def with_norms_apart(
    program: Program, make: Callable[[Program], Program], anchors: Sequence[str] | None = None
) -> Program:
    """What `make` makes of a program whose fixed norms are written out as pointwise calls.

    Only norms of the results of `anchors`, if that is given. A norm that no kernel takes in beside
    other calls stays the library's.
    """
    norms = [
        node.name
        for node in _fixed_norms(program)
        if anchors is None or (isinstance(node.args[0], Ref) and node.args[0].ref in anchors)
    ]
    return with_calls_apart(program, norms, _written_out, make)


def with_calls_apart(
    program: Program,
    names: Sequence[str],
    write: Callable[[OpGraph, Node], tuple[OpGraph, Ref]],
    make: Callable[[Program], Program],
    alone: bool = False,
) -> Program:
    """What `make` makes of a program in which `write` writes some calls out.

    Those whose result no kernel then makes, beside other calls unless `alone`, are left as they
    are.
    """
    changed, results = _apart(program, names, write)
    made = make(changed)
    own = set() if alone else changed.graph.by_name.keys() - program.graph.by_name.keys()
    shared = [kernel.nodes for kernel in made.kernels if not own >= set(kernel.nodes)]
    taken = {name for nodes in shared for name in nodes}
    fused = [name for name, result in zip(names, results, strict=True) if result in taken]
    return made if fused == list(names) else make(_apart(program, fused, write)[0])


def _apart(
    program: Program,
    names: Sequence[str],
    write: Callable[[OpGraph, Node], tuple[OpGraph, Ref]],
) -> tuple[Program, list[str]]:
    """The program with some calls written out, and the calls that make their results."""
    results = []
    for name in names:
        graph, result = write(program.graph, program.graph.by_name[name])
        program = program.changed(graph=graph)
        results.append(result.ref)
    return program, results


def _fixed_norms(program: Program) -> list[Node]:
    """The norms with fixed statistics that can be written out: none that a kernel reads."""
    used = {ref.ref for kernel in program.kernels for ref in kernel.reads}
    return [
        node
        for node in program.library_calls
        if operator(node) == _FIXED and node.name not in used and _fits(program.graph, node)
    ]


def _fits(graph: OpGraph, node: Node) -> bool:
    """Whether nothing reads a norm's statistics, and its types are those that it computes in."""
    types = {graph.spec_of(ref).dtype for ref in node.refs}
    others = {Ref(ref=node.name, index=index) for index in (1, 2)}
    read = {ref for user in graph.users[node.name] for ref in user.refs} | set(graph.outputs)
    return not others & read and (types == {"float64"} or types <= {"float32", *HALVES})


def _written_out(graph: OpGraph, node: Node) -> tuple[OpGraph, Ref]:
    """The graph with one norm written out, and its result there; halves are computed as floats."""
    x, weight, bias, mean, variance, _, epsilon = node.args
    assert isinstance(x, Ref)
    spec = graph.spec_of(x)
    shape = (1, spec.shape[1], *([1] * (len(spec.shape) - 2)))
    wide = "float64" if spec.dtype == "float64" else "float32"
    w = Writer(graph)

    def viewed(given: object) -> Ref:
        assert isinstance(given, Ref)
        dtype = graph.spec_of(given).dtype
        view = w.call("aten.view.default", (given, list(shape)), shape, dtype)
        if dtype == wide:
            return view
        return w.call("aten.to.dtype", (view, f"torch.{wide}"), shape, wide)

    scale = w.call("aten.add.Tensor", (viewed(variance), epsilon), shape, wide)
    scale = w.call("aten.rsqrt.default", (scale,), shape, wide)
    if isinstance(weight, Ref):
        scale = w.call("aten.mul.Tensor", (scale, viewed(weight)), shape, wide)
    y = w.call("aten.sub.Tensor", (x, viewed(mean)), spec.shape, wide)
    y = w.call("aten.mul.Tensor", (y, scale), spec.shape, wide)
    if isinstance(bias, Ref):
        y = w.call("aten.add.Tensor", (y, viewed(bias)), spec.shape, wide)
    if spec.dtype != wide:
        y = w.call("aten.to.dtype", (y, f"torch.{spec.dtype}"), spec.shape, spec.dtype)
    return replace(graph, w, node.name, {Ref(ref=node.name, index=0): y}), y
