"""Scans as kernels of their own: cumulative calls, and loops over time that come to such."""

from math import prod

from knowledge.loops.cost import compared
from knowledge.loops.epilogue import Epilogue, find_epilogue
from knowledge.opgraph import OpGraph
from knowledge.pattern import Proposal, Refusal, Situation, Step
from knowledge.patterns.algebra.edit import operator
from knowledge.patterns.scan import triton
from knowledge.patterns.scan.chain import Scan
from knowledge.patterns.scan.printing import print_scan
from knowledge.patterns.scan.problem import find_scans, inner_size, product_text, shape_checks
from knowledge.patterns.scan.recursion import recursions
from knowledge.program import Kernel, Program, Size, Written, variable

NAME = "scan"
STRIPS = (256, 64, 1024)
# A scanned row up to this size waits in a thread's cache for what is done to it.
ROW_BYTES = 256 << 10
OTHER_STRIP = 0.98
# Scalar operations an element: prefixes of 8 take three shuffles and four additions.
OPERATIONS = {"logcumsumexp": 40}


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """All scans, with strips of several widths where they are not along rows."""
    if program.backend == "triton":
        return triton.propose(program, situation)
    scans, reasons = find_scans(program)
    loops = list(recursions(program))
    if not scans and not loops:
        told = "; ".join(reasons) or "the op scans nothing"
        return Refusal(pattern=NAME, reason=f"No scan can be done here: {told}.")
    first = Step(pattern=NAME, parameters={"strip": STRIPS[0], "only": ""})
    speedup, arithmetic = compared(program, apply(program, first), situation)
    words = _counted(len(scans) + len(loops))
    lanes = any(inner_size(program.graph, scan) > 1 for scan in scans)
    return [
        Proposal(
            step=Step(pattern=NAME, parameters={"strip": strip, "only": ""}),
            title=f"{words} (strips of {strip})" if lanes else words,
            speedup=speedup if strip == STRIPS[0] else speedup * OTHER_STRIP,
            arithmetic=arithmetic,
        )
        for strip in (STRIPS if lanes else STRIPS[:1])
    ]


def apply(program: Program, step: Step) -> Program:
    """The program with scans computed by kernels of their own.

    Raises:
        ValueError: there is no such scan, or the strip is no positive length.
    """
    if program.backend == "triton":
        return triton.apply(program, step)
    strip = step.parameters.get("strip", STRIPS[0])
    if not isinstance(strip, int) or isinstance(strip, bool) or not 1 <= strip <= 1 << 14:
        raise ValueError(f"scan: a strip of {strip} lanes")
    scans, _ = find_scans(program, step.only)
    given = len(program.kernels)
    for scan in scans:
        # What an earlier one does in its rows is not there to be read.
        if program.can_take(scan.nodes, scan.factors):
            program = program.changed(kernels=(*program.kernels, _kernel(program, scan, strip)))
    for loop in recursions(program, step.only):
        if program.can_take(loop.nodes, loop.reads):
            program = program.changed(kernels=(*program.kernels, loop))
    made = len(program.kernels) - given
    if not made:
        raise ValueError("scan: there is nothing to scan")
    return program.changed(steps=(*program.steps, _counted(made)))


def _counted(number: int) -> str:
    return f"{number} scan{'s' if number != 1 else ''} in vectors"


def _epilogue(program: Program, scan: Scan) -> Epilogue | None:
    """What can be done to each scanned row while it is in cache."""
    spec = program.graph.spec_of(scan.made)
    if scan.made.index is not None or scan.dim != len(spec.shape) - 1 or scan.dim == 0:
        return None
    if spec.shape[-1] * 8 > ROW_BYTES or prod(spec.shape[:-1]) < 8:
        return None
    source = variable(scan.factors[0])
    shape = tuple(f"{source}.shape[{dim}]" for dim in range(len(spec.shape)))
    return find_epilogue(program, scan.made.ref, len(shape) - 1, shape)


def _kernel(program: Program, scan: Scan, strip: int) -> Kernel:
    graph, source = program.graph, variable(scan.factors[0])
    spec = graph.spec_of(scan.made)
    rank = len(spec.shape)
    along_rows = inner_size(graph, scan) == 1
    epilogue = _epilogue(program, scan)
    own = Written(ref=scan.made, shape=f"{source}.shape", spec=spec)
    writes: tuple[Written, ...] = (own,)
    if epilogue is not None:
        writes = (*([own] if epilogue.keeps_anchor else []), *epilogue.writes)
    reads = (*scan.factors, *(epilogue.reads if epilogue is not None else ()))
    sizes = [
        Size(name="outer", expression=product_text(source, range(scan.dim))),
        Size(name="length", expression=f"{source}.shape[{scan.dim}]"),
    ]
    if not along_rows:
        inner = product_text(source, range(scan.dim + 1, rank))
        sizes.append(Size(name="inner", expression=inner))
    every = (*(epilogue.sizes if epilogue is not None else ()), *sizes)
    name = f"{scan.node}_scan"
    factors = tuple(graph.spec_of(ref).dtype for ref in scan.factors)
    return Kernel(
        name=name,
        source=print_scan(scan, factors, name, None if along_rows else strip, epilogue),
        signature="p" * (len(reads) + len(writes)) + "i" * len(every),
        nodes=(*scan.nodes, *(epilogue.nodes if epilogue is not None else ())),
        reads=reads,
        writes=writes,
        sizes=every,
        checks=(
            *shape_checks(graph, scan, along_rows),
            *(epilogue.checks if epilogue is not None else ()),
        ),
        note=_note(graph, scan, epilogue),
        moved_bytes=sum(graph.spec_of(ref).nbytes for ref in reads)
        + sum(written.spec.nbytes for written in writes),
        operations=spec.numel * OPERATIONS.get(scan.operation, 8)
        + (epilogue.operations if epilogue is not None else 0),
    )


def _note(graph: OpGraph, scan: Scan, epilogue: Epilogue | None) -> str:
    words: list[str] = [scan.operation]
    words += ["from the end"] if scan.reverse else []
    words += ["without the own element"] if scan.exclusive else []
    words += ["of a product"] if len(scan.factors) > 1 else []
    later = epilogue.nodes if epilogue is not None else ()
    return ", ".join(
        [" ".join(words), *(operator(graph.by_name[name]).strip("_") for name in later)]
    )
