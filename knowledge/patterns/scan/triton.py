"""Scans in Triton: tunables, the kernel of one, and what it should cost on a GPU."""

from knowledge.loops.cost import compared
from knowledge.loops.triton_tile import power_of_two
from knowledge.opgraph import OpGraph
from knowledge.pattern import Parameter, Proposal, Refusal, Situation, Step
from knowledge.patterns.scan.chain import Scan
from knowledge.patterns.scan.problem import find_scans, inner_size, product_text, shape_checks
from knowledge.patterns.scan.triton_source import Blocks, print_scan
from knowledge.program import Kernel, Program, Size, Written, variable

NAME = "scan"
FIRST: dict[str, Parameter] = {"accumulate": "float", "steps": 0, "warps": 0, "parts": 0}
ALLOWED: dict[str, tuple[Parameter, ...]] = {
    "accumulate": ("float", "double"),
    "steps": (0, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    "warps": (0, 1, 2, 4, 8),
    "parts": (0, 1, 4, 16, 64),
}
# Elements of a tile: 16 a thread in 4 warps.
TILE = 2048
LANES = 64
# Programs that fill a machine of 132 multiprocessors twice, and the shortest part worth two reads.
PROGRAMS, LEAST_PART, MOST_PARTS = 256, 4096, 128
# Ten log steps of a block of 1024, of which a thread does its own run with one operation each.
OPERATIONS = {"logcumsumexp": 40}
OTHER_BLOCKS = 0.98


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """All scans, in blocks by the sizes first."""
    scans, reasons = find_scans(program)
    if not scans:
        told = "; ".join(reasons) or "the op scans nothing"
        return Refusal(pattern=NAME, reason=f"No scan can be done here: {told}.")
    words = f"{len(scans)} scan{'s' if len(scans) > 1 else ''} in Triton"
    changes: list[dict[str, Parameter]] = [
        {}, {"steps": 512}, {"steps": 4096, "warps": 8}, {"warps": 8}, {"parts": 1},
        {"parts": 16},
    ]  # fmt: skip
    first = Step(pattern=NAME, parameters={**FIRST, "only": ""})
    speedup, arithmetic = compared(program, apply(program, first), situation)
    return [
        Proposal(
            step=Step(pattern=NAME, parameters={**FIRST, **change, "only": ""}),
            title=f"{words} ({', '.join(f'{k} {v}' for k, v in change.items()) or 'by the sizes'})",
            speedup=speedup * (OTHER_BLOCKS if change else 1.0),
            arithmetic=arithmetic,
        )
        for change in changes
    ]


def apply(program: Program, step: Step) -> Program:
    """The program with scans computed by Triton kernels.

    Raises:
        ValueError: there is no such scan, or a tunable has an unknown value.
    """
    values = {name: step.parameters.get(name, first) for name, first in FIRST.items()}
    unknown = set(step.parameters) - {*FIRST, "only"}
    if unknown or any(value not in ALLOWED[name] for name, value in values.items()):
        raise ValueError(f"scan: unknown tunables {step.parameters}")
    scans, _ = find_scans(program, step.only)
    if not scans:
        raise ValueError("scan: there is nothing to scan")
    kernels = tuple(make_kernel(program.graph, scan, values) for scan in scans)
    words = f"{len(scans)} scan{'s' if len(scans) > 1 else ''} in Triton"
    return program.changed(kernels=(*program.kernels, *kernels), steps=(*program.steps, words))


def choose(graph: OpGraph, scan: Scan, values: dict[str, Parameter]) -> Blocks:
    """The blocks for a scan at its traced sizes."""
    spec, inner = graph.spec_of(scan.made), inner_size(graph, scan)
    length = spec.shape[scan.dim]
    count = spec.numel // length
    lanes = min(LANES, power_of_two(inner)) if inner > 1 else 1
    most = int(values["steps"]) or max(32, TILE // lanes)
    steps = min(most, max(16, power_of_two(length)))
    lines = min(max(lanes, TILE // steps), power_of_two(count))
    programs, parts = -(-count // lines), 1
    while programs * parts * 2 <= PROGRAMS and length >= 2 * parts * LEAST_PART:
        parts *= 2
    return Blocks(
        lines=lines, steps=steps, warps=int(values["warps"]) or 4,
        parts=int(values["parts"]) or min(parts, MOST_PARTS),
        wide=values["accumulate"] == "double",
    )  # fmt: skip


def make_kernel(graph: OpGraph, scan: Scan, values: dict[str, Parameter]) -> Kernel:
    """The kernel of one scan."""
    source, spec = variable(scan.factors[0]), graph.spec_of(scan.made)
    rank, blocks = len(spec.shape), choose(graph, scan, values)
    name = f"{scan.node}_scan"
    words = [scan.operation, *(["from the end"] if scan.reverse else [])]
    words += ["without the own element"] if scan.exclusive else []
    note = " ".join([*words, *(["of a product"] if len(scan.factors) > 1 else [])])
    printed = print_scan(scan, blocks, name, note)
    sizes = (
        Size(name="outer", expression=product_text(source, range(scan.dim))),
        Size(name="length", expression=f"{source}.shape[{scan.dim}]"),
        Size(name="inner", expression=product_text(source, range(scan.dim + 1, rank))),
    )
    read = sum(graph.spec_of(ref).nbytes for ref in scan.factors)
    return Kernel(
        name=name, language="triton", source=printed.source, helpers=printed.helpers,
        signature="p" * (len(scan.factors) + 1) + "i" * len(sizes), nodes=scan.nodes,
        reads=scan.factors,
        writes=(Written(ref=scan.made, shape=f"{source}.shape", spec=spec),), sizes=sizes,
        checks=shape_checks(graph, scan, along_rows=False), note=note,
        moved_bytes=read * (2 if blocks.parts > 1 else 1) + spec.nbytes,
        programs=-(-spec.numel // (spec.shape[scan.dim] * blocks.lines)) * blocks.parts,
        operations=spec.numel * OPERATIONS.get(scan.operation, 8),
    )  # fmt: skip
