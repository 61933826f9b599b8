"""What C++ and Triton do alike with matrix products: find, choose, replace and count them."""

from collections.abc import Callable, Sequence

from knowledge.loops.cost import Machine, gains, only_of
from knowledge.opgraph import Node
from knowledge.pattern import Refusal
from knowledge.patterns.convolution.fixed_norms import with_norms_apart
from knowledge.patterns.matmul.contraction import Contraction
from knowledge.patterns.matmul.match import is_anchor
from knowledge.program import Kernel, Program

NAME = "matmul"
# The product that a call computes, or one sentence on why no kernel takes it.
Find = Callable[[Program, Node], Contraction | str]
# A product's kernel, of that name.
Make = Callable[[Program, Contraction, str], Kernel]


def find_products(
    program: Program, find: Find, only: frozenset[str] = frozenset()
) -> tuple[list[Contraction], list[str]]:
    """The products that can be taken, of these calls if any are named, and why others can't."""
    found: list[Contraction] = []
    reasons: list[str] = []
    for node in program.graph.calls:
        wanted = is_anchor(node) and node.name not in program.kernel_of
        if not wanted or (only and node.name not in only):
            continue
        one = find(program, node)
        if isinstance(one, str):
            reasons.append(one)
        else:
            found.append(one)
    return found, reasons


def refusal(reasons: Sequence[str]) -> Refusal:
    """That no product is taken."""
    told = "; ".join(reasons) or "the op has no matrix product"
    return Refusal(pattern=NAME, reason=f"No product is taken: {told[:300]}.")


def gaining(program: Program, found: Sequence[Contraction], make: Make, machine: Machine) -> str:
    """The products to take, by name; empty where it is all of them, or where none would gain."""
    names = [
        one.anchor for one in found if gains(program, make(program, one, NAME), one.nodes, machine)
    ]
    return only_of(names, [one.anchor for one in found])


def replaced(program: Program, found: Sequence[Contraction], find: Find, make: Make) -> Program:
    """The program with kernels for these products; the first to have a call in it keeps it.

    One that reads what another keeps to itself is left alone.
    """
    anchors = [one.anchor for one in found]

    def taken(given: Program) -> Program:
        # Found anew: one may read what a norm was written out as.
        return _taken(given, find_products(given, find, frozenset(anchors))[0], make)

    return with_norms_apart(program, taken, anchors)


def _taken(program: Program, found: Sequence[Contraction], make: Make) -> Program:
    for one in found:
        reads = [one.a.ref, one.b.ref, *([one.offset.ref] if one.offset else [])]
        if program.can_take(one.nodes, reads):
            kernel = make(program, one, f"{NAME}_{len(program.kernels)}")
            program = program.changed(kernels=(*program.kernels, kernel))
    return program


def counted(number: int) -> str:
    """So many products, in words."""
    return f"{number} matrix product{'s' if number != 1 else ''}"
