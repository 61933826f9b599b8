"""Sums of rows by an index as kernels of their own: index_add, and bags of embeddings."""

from dataclasses import dataclass

from knowledge.anchors import Unfit, kernels_for
from knowledge.loops.cost import compared
from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec
from knowledge.pattern import Proposal, Refusal, Situation, Step
from knowledge.patterns.algebra.edit import argument, operator, producer, read_once
from knowledge.patterns.scatter.printing import Types, print_added, print_bagged
from knowledge.program import Check, Kernel, Program, Size, Written, variable

NAME = "scatter"
SUMMED, INDICES = ("float32", "float64"), ("int64", "int32")
_FLAG = TensorSpec(shape=(), dtype="int64", strides=())


@dataclass(frozen=True)
class _Parts:
    """What tells one kernel from another: source, tensors, sizes, and the complaint."""

    source: str
    nodes: tuple[str, ...]
    reads: tuple[Ref, ...]
    made: Written
    sizes: tuple[Size, ...]
    checks: tuple[Check, ...]
    complaint: str
    moved: int


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """One proposal that takes every scattered sum."""
    found, reasons = _found(program)
    if not found:
        told = "; ".join(dict.fromkeys(reasons)) or "the op sums nothing by an index"
        return Refusal(pattern=NAME, reason=f"No scattered sum can be done here: {told}.")
    step = Step(pattern=NAME, parameters={"only": ""})
    speedup, arithmetic = compared(program, apply(program, step), situation)
    return [Proposal(step=step, title=_words(found), speedup=speedup, arithmetic=arithmetic)]


def apply(program: Program, step: Step) -> Program:
    """The program with scattered sums computed by kernels of their own.

    Raises:
        ValueError: there is no such sum.
    """
    found, _ = _found(program, step.only)
    if not found:
        raise ValueError("scatter: there is nothing to sum")
    return program.changed(
        kernels=(*program.kernels, *found), steps=(*program.steps, _words(found))
    )


def _words(found: list[Kernel]) -> str:
    return f"{len(found)} sum{'s' if len(found) > 1 else ''} of rows by an index"


def _found(program: Program, only: frozenset[str] = frozenset()) -> tuple[list[Kernel], list[str]]:
    return kernels_for(
        program, lambda node: operator(node) in ("index_add", "embedding_bag"), _kernel, only
    )


def _kernel(program: Program, node: Node) -> Kernel:
    if program.backend != "cpp":
        raise Unfit("sums of rows are done on the CPU alone")
    name, graph = f"{node.name}_rows", program.graph
    parts = (_added if operator(node) == "index_add" else _bagged)(graph, node, name)
    flag = Ref(ref=f"outside_of_{node.name}")
    writes = (parts.made, Written(ref=flag, shape="()", spec=_FLAG))
    return Kernel(
        name=name,
        source=parts.source,
        signature="p" * (len(parts.reads) + len(writes)) + "i" * len(parts.sizes),
        nodes=parts.nodes,
        reads=parts.reads,
        writes=writes,
        sizes=parts.sizes,
        checks=parts.checks,
        complaints={flag.ref: parts.complaint},
        note=f"{operator(node)}: rows summed by an index",
        moved_bytes=parts.moved + parts.made.spec.nbytes,
    )


def _types(graph: OpGraph, summed: Ref, index: Ref) -> Types:
    dtype, whole = graph.spec_of(summed).dtype, graph.spec_of(index).dtype
    if dtype not in SUMMED or whole not in INDICES:
        raise Unfit(f"a sum of {dtype} by an index of {whole}")
    return Types(dtype, whole)


def _zeros(graph: OpGraph, start: Ref) -> Node | None:
    """The call that makes zeros for this sum alone."""
    made = producer(graph, start)
    is_zero = operator(made) in ("zeros_like", "zeros", "new_zeros")
    return made if is_zero and read_once(graph, start) else None


def _product(name: str, rank: int) -> str:
    return " * ".join(f"{name}.shape[{dim}]" for dim in range(1, rank)) or "1"


def _added(graph: OpGraph, node: Node, name: str) -> _Parts:
    start, dim, index, source = (argument(node, at, word) for at, word in enumerate(
        ("self", "dim", "index", "source")
    ))  # fmt: skip
    alpha, spec = argument(node, 4, "alpha", 1), node.spec
    if dim % max(len(spec.shape), 1) != 0 or not spec.shape or not isinstance(alpha, int | float):
        raise Unfit("a sum along another than the first dimension")
    if graph.spec_of(source).dtype != spec.dtype or len(graph.spec_of(index).shape) != 1:
        raise Unfit("a sum of another type, or by one number")
    types = _types(graph, source, index)
    zeros = _zeros(graph, start)
    reads = (index, source) if zeros is not None else (start, index, source)
    out, rows, of = f"{variable(start)}.shape", variable(index), variable(source)
    if zeros is not None:
        like = zeros.args[0] if operator(zeros) == "zeros_like" else None
        out = f"{variable(like)}.shape" if isinstance(like, Ref) else repr(spec.shape)
    width = _product(of, len(spec.shape))
    return _Parts(
        nodes=(node.name,) if zeros is None else (zeros.name, node.name),
        source=print_added(name, types, alpha, zeros is not None),
        reads=reads,
        made=Written(ref=Ref(ref=node.name), shape=out, spec=spec),
        sizes=(
            Size(name="rows", expression=f"{out}[0]"),
            Size(name="count", expression=f"{of}.shape[0]"),
            Size(name="width", expression=width),
        ),
        checks=(
            Check(left=f"{rows}.shape[0]", right=f"{of}.shape[0]",
                  sentence="each row should have one target"),
            Check(left=f"{out}[1:]", right=f"{of}.shape[1:]",
                  sentence="rows should be as wide as what they are added to"),
        ),
        complaint=f"{node.name}: a target is out of range",
        moved=sum(graph.spec_of(ref).nbytes for ref in reads),
    )  # fmt: skip


def _bagged(graph: OpGraph, node: Node, name: str) -> _Parts:
    weight, indices, offsets = (argument(node, at, word) for at, word in enumerate(
        ("weight", "indices", "offsets")
    ))  # fmt: skip
    mode = argument(node, 4, "mode", 0)
    plain = not argument(node, 6, "per_sample_weights") and not argument(
        node, 7, "include_last_offset", False
    )
    if not plain or argument(node, 8, "padding_idx") is not None:
        raise Unfit("a bag with weights, a padding index or a last offset")
    others = [ref for one in graph.nodes for ref in one.refs] + list(graph.outputs)
    if any(ref.ref == node.name and ref.index != 0 for ref in others):
        raise Unfit("another result of a bag is read")
    types = _types(graph, weight, indices)
    if graph.spec_of(offsets).dtype != types.index or len(graph.spec_of(indices).shape) != 1:
        raise Unfit("offsets of another type than the index")
    made = Ref(ref=node.name, index=0)
    table, index, starts = variable(weight), variable(indices), variable(offsets)
    return _Parts(
        nodes=(node.name,),
        source=print_bagged(name, types, mode),
        reads=(weight, indices, offsets),
        made=Written(ref=made, shape=f"({starts}.shape[0], {table}.shape[1])",
                     spec=graph.spec_of(made)),
        sizes=(
            Size(name="bags", expression=f"{starts}.shape[0]"),
            Size(name="count", expression=f"{index}.shape[0]"),
            Size(name="rows", expression=f"{table}.shape[0]"),
            Size(name="width", expression=f"{table}.shape[1]"),
        ),
        checks=(),
        complaint=f"{node.name}: an index or an offset is out of range",
        moved=graph.spec_of(indices).numel * graph.spec_of(weight).shape[1]
        * (8 if types.dtype == "float64" else 4),
    )  # fmt: skip
