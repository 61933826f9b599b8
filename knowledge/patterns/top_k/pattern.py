"""The largest or smallest of every row, with their places, as kernels of their own."""

from typing import NamedTuple

from knowledge.anchors import Unfit, kernels_for
from knowledge.loops.cost import compared
from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec
from knowledge.pattern import Proposal, Refusal, Situation, Step
from knowledge.patterns.algebra.edit import argument, operator
from knowledge.patterns.top_k.printing import KEYS, Selection, block_of, print_top_k
from knowledge.program import Check, Kernel, Program, Size, Written, variable

NAME = "top_k"
TARGETS = ("aten.topk.default", "aten.max.dim", "aten.min.dim")
# More than so many of each row are as well sorted by the library.
MOST = 64
# Scalar operations: of an element once, and of each that a pick looks at.
EACH, LOOKED_AT = 4, 2


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """One proposal that takes every selection."""
    found, reasons = _found(program)
    if not found:
        told = "; ".join(dict.fromkeys(reasons)) or "the op selects nothing"
        return Refusal(pattern=NAME, reason=f"No rows can be searched here: {told}.")
    step = Step(pattern=NAME, parameters={"only": ""})
    speedup, arithmetic = compared(program, apply(program, step), situation)
    return [Proposal(step=step, title=_words(found), speedup=speedup, arithmetic=arithmetic)]


def apply(program: Program, step: Step) -> Program:
    """The program with the first of rows picked by kernels of their own.

    Raises:
        ValueError: there is no such selection.
    """
    found, _ = _found(program, step.only)
    if not found:
        raise ValueError("top_k: there is nothing to pick")
    return program.changed(
        kernels=(*program.kernels, *found), steps=(*program.steps, _words(found))
    )


def _words(found: list[Kernel]) -> str:
    return f"{len(found)} selection{'s' if len(found) > 1 else ''} from rows in blocks"


def _found(program: Program, only: frozenset[str] = frozenset()) -> tuple[list[Kernel], list[str]]:
    return kernels_for(program, lambda node: node.target in TARGETS, _kernel, only)


def _kernel(program: Program, node: Node) -> Kernel:
    if program.backend != "cpp":
        raise Unfit("rows are searched on the CPU alone")
    graph = program.graph
    rows = argument(node, 0, "self")
    if not isinstance(rows, Ref):
        raise Unfit("what is searched is no tensor")
    spec = graph.spec_of(rows)
    asked = _asked(node)
    picked = asked.picked
    _check(spec, picked, asked.dim)
    if not program.can_take((node.name,), (rows,)):
        raise Unfit("what is searched is another kernel's own")
    length = spec.shape[-1]
    source, name = variable(rows), f"{node.name}_rows"
    read = _read(graph, node.name)
    written = [Ref(ref=node.name, index=index) for index in read]
    writes = tuple(
        Written(ref=ref, shape=asked.shape.format(source), spec=graph.spec_of(ref))
        for ref in written
    )
    block = block_of(length)
    looked_at = length // block + 2 * block
    selection = Selection(spec.dtype, length, picked, asked.largest, asked.nan_first, read)
    return Kernel(
        name=name,
        source=print_top_k(name, selection),
        signature="p" * (1 + len(writes)) + "ii",
        nodes=(node.name,),
        reads=(rows,),
        writes=writes,
        sizes=(
            Size(name="rows", expression=f"{source}.numel() // {source}.shape[-1]"),
            Size(name="length", expression=f"{source}.shape[-1]"),
        ),
        checks=(
            Check(
                left=f"({source}.shape[-1] >= {picked})",
                right="True",
                sentence=f"rows should have {picked} elements or more",
            ),
        ),
        note=f"{operator(node)}: the {'largest' if asked.largest else 'smallest'} of every row",
        moved_bytes=spec.nbytes + sum(one.spec.nbytes for one in writes),
        operations=spec.numel * EACH + spec.numel // length * picked * looked_at * LOOKED_AT,
    )


class _Asked(NamedTuple):
    """What a call asks for; `shape` of the results, with {} for the rows' variable."""

    picked: int
    dim: int
    largest: bool
    nan_first: bool
    shape: str


def _asked(node: Node) -> _Asked:
    if node.target != "aten.topk.default":
        largest = node.target == "aten.max.dim"
        kept = "(*{}.shape[:-1], 1)" if argument(node, 2, "keepdim", False) else "{}.shape[:-1]"
        # NaN is passed on, the first of several.
        return _Asked(1, argument(node, 1, "dim"), largest, True, kept)
    picked, largest = argument(node, 1, "k"), argument(node, 3, "largest", True)
    if not isinstance(picked, int):
        raise Unfit("how many are picked is not known beforehand")
    # NaN is the largest of all.
    shape = f"(*{{}}.shape[:-1], {picked})"
    return _Asked(picked, argument(node, 2, "dim", -1), largest, largest, shape)


def _check(spec: TensorSpec, picked: int, dim: int) -> None:
    """Raises Unfit for what the kernel does not do."""
    if spec.dtype not in KEYS:
        raise Unfit(f"rows of {spec.dtype}")
    if not spec.shape or dim % len(spec.shape) != len(spec.shape) - 1:
        raise Unfit("along another than the last dimension")
    if not 1 <= picked <= MOST:
        raise Unfit(f"{picked} of each row, where at most {MOST} are picked")
    if not spec.numel:
        raise Unfit("there are no elements")


def _read(graph: OpGraph, name: str) -> tuple[int, ...]:
    """Which of a call's results anybody reads."""
    refs = [*(ref for node in graph.nodes for ref in node.refs), *graph.outputs]
    return tuple(sorted({ref.index or 0 for ref in refs if ref.ref == name})) or (0,)
