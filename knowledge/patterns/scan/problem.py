"""What scans a program has, and what must hold of their tensors' shapes."""

from math import prod

from knowledge.opgraph import OpGraph
from knowledge.patterns.scan.chain import Scan, scan_of
from knowledge.program import Check, Program, variable


def find_scans(
    program: Program, only: frozenset[str] = frozenset()
) -> tuple[list[Scan], list[str]]:
    """The scans that no kernel computes yet, those of `only` if given, and why others can't be."""
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


def inner_size(graph: OpGraph, scan: Scan) -> int:
    """How many neighbours in memory are one step of a scan, at the traced sizes."""
    return prod(graph.spec_of(scan.made).shape[scan.dim + 1 :])


def product_text(source: str, dims: range) -> str:
    """The number of elements over some dimensions of a tensor, as Python."""
    return " * ".join(f"{source}.shape[{dim}]" for dim in dims) or "1"


def shape_checks(graph: OpGraph, scan: Scan, along_rows: bool) -> tuple[Check, ...]:
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
