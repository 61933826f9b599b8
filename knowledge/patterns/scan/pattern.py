"""Scans as kernels of their own: cumulative sums, products, extremes, and log-sum-exps."""

from math import prod

from knowledge.loops.cost import compared
from knowledge.loops.epilogue import Epilogue, find_epilogue
from knowledge.opgraph import OpGraph
from knowledge.pattern import Proposal, Refusal, Situation, Step
from knowledge.patterns.algebra.edit import operator
from knowledge.patterns.scan.chain import Scan, scan_of
from knowledge.patterns.scan.printing import print_scan
from knowledge.program import Check, Kernel, Program, Size, Written, variable

NAME = "scan"
STRIPS = (256, 64, 1024)
# A scanned row up to this size waits in a thread's cache for what is done to it.
ROW_BYTES = 256 << 10
OTHER_STRIP = 0.98
# Scalar operations an element: prefixes of 8 take three shuffles and four additions.
OPERATIONS = {"logcumsumexp": 40}


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """All scans, with strips of several widths where they are not along rows."""
    scans, reasons = _scans(program)
    if not scans:
        told = "; ".join(reasons) or "the op scans nothing"
        return Refusal(pattern=NAME, reason=f"No scan can be done here: {told}.")
    first = Step(pattern=NAME, parameters={"strip": STRIPS[0], "only": ""})
    speedup, arithmetic = compared(program, apply(program, first), situation)
    words = f"{len(scans)} scan{'s' if len(scans) > 1 else ''} in vectors"
    lanes = any(_inner(program.graph, scan) > 1 for scan in scans)
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
    strip = step.parameters.get("strip", STRIPS[0])
    if not isinstance(strip, int) or isinstance(strip, bool) or not 1 <= strip <= 1 << 14:
        raise ValueError(f"scan: a strip of {strip} lanes")
    scans, _ = _scans(program, step.only)
    if not scans:
        raise ValueError("scan: there is nothing to scan")
    for scan in scans:
        program = program.changed(kernels=(*program.kernels, _kernel(program, scan, strip)))
    words = f"{len(scans)} scan{'s' if len(scans) > 1 else ''} in vectors"
    return program.changed(steps=(*program.steps, words))


def _scans(program: Program, only: frozenset[str] = frozenset()) -> tuple[list[Scan], list[str]]:
    found: list[Scan] = []
    reasons: list[str] = []
    for node in program.library_calls:
        if only and node.name not in only:
            continue
        scan = scan_of(program.graph, node)
        if isinstance(scan, str):
            reasons.append(scan)
        elif scan is not None and not set(scan.nodes) & program.kernel_of.keys():
            found.append(scan)
    return found, reasons


def _inner(graph: OpGraph, scan: Scan) -> int:
    return prod(graph.spec_of(scan.made).shape[scan.dim + 1 :])


def _product(source: str, dims: range) -> str:
    return " * ".join(f"{source}.shape[{dim}]" for dim in dims) or "1"


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
    along_rows = _inner(graph, scan) == 1
    epilogue = _epilogue(program, scan)
    own = Written(ref=scan.made, shape=f"{source}.shape", spec=spec)
    writes: tuple[Written, ...] = (own,)
    if epilogue is not None:
        writes = (*([own] if epilogue.keeps_anchor else []), *epilogue.writes)
    reads = (*scan.factors, *(epilogue.reads if epilogue is not None else ()))
    sizes = [
        Size(name="outer", expression=_product(source, range(scan.dim))),
        Size(name="length", expression=f"{source}.shape[{scan.dim}]"),
    ]
    if not along_rows:
        inner = _product(source, range(scan.dim + 1, rank))
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
            *_checks(graph, scan, along_rows),
            *(epilogue.checks if epilogue is not None else ()),
        ),
        note=_note(graph, scan, epilogue),
        moved_bytes=sum(graph.spec_of(ref).nbytes for ref in reads)
        + sum(written.spec.nbytes for written in writes),
        operations=spec.numel * OPERATIONS.get(scan.operation, 8)
        + (epilogue.operations if epilogue is not None else 0),
    )


def _checks(graph: OpGraph, scan: Scan, along_rows: bool) -> tuple[Check, ...]:
    """What must hold of shapes: the factors' are equal, and what has one element keeps it."""
    source = variable(scan.factors[0])
    found = [
        Check(
            left=f"{variable(other)}.shape",
            right=f"{source}.shape",
            sentence=f"{variable(other)} and {source} should have the same shape",
        )
        for other in scan.factors[1:]
    ]
    rank = len(graph.spec_of(scan.made).shape)
    if along_rows and scan.dim != rank - 1:
        found += [
            Check(
                left=f"{source}.shape[{dim}]",
                right="1",
                sentence=f"dimension {dim} of what is scanned should be 1",
            )
            for dim in range(scan.dim + 1, rank)
        ]
    return tuple(found)


def _note(graph: OpGraph, scan: Scan, epilogue: Epilogue | None) -> str:
    words: list[str] = [scan.operation]
    words += ["from the end"] if scan.reverse else []
    words += ["without the own element"] if scan.exclusive else []
    words += ["of a product"] if len(scan.factors) > 1 else []
    later = epilogue.nodes if epilogue is not None else ()
    return ", ".join(
        [" ".join(words), *(operator(graph.by_name[name]).strip("_") for name in later)]
    )
