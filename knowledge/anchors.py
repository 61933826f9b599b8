"""Calls that a pattern computes one by one, each by a kernel of its own."""

from collections.abc import Callable

from knowledge.opgraph import Node
from knowledge.program import Kernel, Program


class Unfit(Exception):
    """A call that looks like a pattern's own and can't be done by it; the message says why."""


def kernels_for(
    program: Program,
    meant: Callable[[Node], bool],
    kernel_of: Callable[[Program, Node], Kernel],
    only: frozenset[str] = frozenset(),
) -> tuple[list[Kernel], list[str]]:
    """A kernel for each library call that is meant, and why the others have none.

    Args:
        program: whose calls are looked through.
        meant: whether the pattern is about a call.
        kernel_of: raises Unfit for what can't be done.
        only: names of calls; none stands for all.
    """
    kernels: list[Kernel] = []
    reasons: list[str] = []
    for node in program.library_calls:
        if not meant(node) or (only and node.name not in only):
            continue
        try:
            kernels.append(kernel_of(program, node))
        except Unfit as unfit:
            reasons.append(str(unfit))
    return kernels, reasons
