"""Lets oneDNN multiply: the call becomes one of another operator, which torch has on CPU builds."""

from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec
from knowledge.program import Program

TARGET = "mkldnn._linear_pointwise.default"


def to_onednn(program: Program, names: tuple[str, ...]) -> tuple[Program, tuple[str, ...]]:
    """The program with those of these calls that fit given to oneDNN, and which ones were."""
    done: list[str] = []
    nodes: list[Node] = []
    for node in program.graph.nodes:
        made = _call(program.graph, node) if node.name in names else []
        nodes += made or [node]
        done += [node.name] if made else []
    graph = program.graph
    changed = OpGraph(
        nodes=tuple(nodes), outputs=graph.outputs, returns=graph.returns,
        mutations=graph.mutations, training=graph.training,
    )  # fmt: skip
    return program.changed(graph=_without_idle_views(changed, graph)), tuple(done)


def _call(graph: OpGraph, node: Node) -> list[Node]:
    """The nodes in place of a product; none where oneDNN has no such call."""
    name = node.target.split(".")[1]
    # Its routines for halves want instructions that not all processors have.
    if name not in ("linear", "mm", "matmul", "addmm") or node.spec.dtype != "float32":
        return []
    given = [arg for arg in node.args if isinstance(arg, Ref)]
    bias = node.kwargs.get("bias")
    bias = bias if isinstance(bias, Ref) else None
    if name == "addmm":
        bias, given = given[0], given[1:]
        if (
            any(factor != 1 for factor in node.kwargs.values())
            or len(graph.spec_of(bias).shape) != 1
        ):
            return []
    elif len(given) == 3:
        bias = given[2]
    x, weight = given[:2]
    columns = node.spec.shape[-1] if node.spec.shape else 0
    fits = len(graph.spec_of(weight).shape) == 2 and len(graph.spec_of(x).shape) >= 2
    if not fits or (bias is not None and graph.spec_of(bias).shape != (columns,)):
        return []
    before: list[Node] = []
    if name != "linear":
        weight, before = _turned(graph, weight, node.name)
    call = node.model_copy(
        update={"target": TARGET, "args": (x, weight, bias, "none", [], ""), "kwargs": {}}
    )
    return [*before, call]


def _turned(graph: OpGraph, weight: Ref, name: str) -> tuple[Ref, list[Node]]:
    """A matrix transposed: what a view was taken of, or a view of it."""
    made = graph.by_name[weight.ref]
    source = made.args[0] if made.args else None
    swaps = made.target in ("aten.t.default", "aten.transpose.int", "aten.permute.default")
    if isinstance(source, Ref) and swaps:
        spec = graph.spec_of(source)
        if spec.shape == made.spec.shape[::-1] and spec.strides == made.spec.strides[::-1]:
            return source, []
    spec = graph.spec_of(weight)
    turned = TensorSpec(shape=spec.shape[::-1], dtype=spec.dtype, strides=spec.strides[::-1])
    view = Node(
        name=f"{name}_weight", kind="call", target="aten.t.default", args=(weight,), result=turned
    )
    return Ref(ref=view.name), [view]


def _without_idle_views(graph: OpGraph, before: OpGraph) -> OpGraph:
    """The graph without views that only a replaced call read."""
    kept = {ref.ref for ref in graph.outputs}
    kept |= {text.partition("[")[0] for text in graph.mutations.values()}
    idle = {
        node.name
        for node in graph.calls
        if not graph.users[node.name] and node.name not in kept and before.users.get(node.name)
    }
    return OpGraph(
        nodes=tuple(node for node in graph.nodes if node.name not in idle),
        outputs=graph.outputs, returns=graph.returns, mutations=graph.mutations,
        training=graph.training,
    )  # fmt: skip
