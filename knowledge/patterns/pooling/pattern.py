"""Pooling as a kernel of its own: rows of a window first, columns after, and what follows fused."""

from collections.abc import Sequence
from math import prod

from knowledge.loops.cost import compared
from knowledge.loops.epilogue import find_epilogue
from knowledge.loops.triton_epilogue import find_triton_epilogue
from knowledge.opgraph import Node, OpGraph
from knowledge.pattern import Parameter, Proposal, Refusal, Situation, Step
from knowledge.patterns.algebra.edit import operator
from knowledge.patterns.pooling import triton
from knowledge.patterns.pooling.monotone import delayed
from knowledge.patterns.pooling.printing import Fused, print_pool
from knowledge.patterns.pooling.windows import Pool, output_size, pool_of
from knowledge.program import Check, Kernel, Program, Size, Written, variable

NAME = "pooling"
STRIPS = (512, 128, 2048)
# A plane up to this size, pooled, waits in a thread's cache for what is done to it.
PLANE_BYTES = 256 << 10
OTHER_STRIP = 0.98


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """All poolings, with strips of several lengths."""
    pools, reasons = _pools(program)
    if not pools:
        told = "; ".join(reasons) or "the op pools nothing"
        return Refusal(pattern=NAME, reason=f"No pooling can be done here: {told}.")
    first: dict[str, Parameter] = {"strip": STRIPS[0], "only": ""}
    if program.backend == "triton":
        first = {**triton.DEFAULTS, "only": ""}
    step = Step(pattern=NAME, parameters=first)
    speedup, arithmetic = compared(program, apply(program, step), situation)
    words = f"{len(pools)} pooling{'s' if len(pools) > 1 else ''}"
    if program.backend == "triton":
        return [
            Proposal(
                step=Step(pattern=NAME, parameters={**first, "block": block}),
                title=f"{words} by own kernels ({block} results a program)",
                speedup=speedup * (1.0 if block == first["block"] else OTHER_STRIP),
                arithmetic=arithmetic,
            )
            for block in triton.BLOCKS
        ]
    words += " along rows, then columns"
    return [
        Proposal(
            step=Step(pattern=NAME, parameters={"strip": strip, "only": ""}),
            title=f"{words} (strips of {strip})",
            speedup=speedup if strip == STRIPS[0] else speedup * OTHER_STRIP,
            arithmetic=arithmetic,
        )
        for strip in (STRIPS if not all(pool.adaptive for pool in pools) else STRIPS[:1])
    ]


def apply(program: Program, step: Step) -> Program:
    """The program with poolings computed by kernels of their own.

    Raises:
        ValueError: there is no such pooling, or the strip is no positive length.
    """
    own = {name: value for name, value in step.parameters.items() if name != "only"}
    strip = own.get("strip", STRIPS[0])
    if program.backend == "triton":
        triton.settings(own)
    elif not isinstance(strip, int) or isinstance(strip, bool) or not 1 <= strip <= 1 << 16:
        raise ValueError(f"pooling: a strip of {strip} results")
    pools, _ = _pools(program, step.only)
    if not pools:
        raise ValueError("pooling: there is nothing to pool")
    for pool in pools:
        program, name = _delayed(program, pool)
        node = program.graph.by_name[name]
        found = pool_of(program.graph, node)
        assert isinstance(found, Pool)
        if program.backend == "triton":
            kernel = _triton_kernel(program, node, found, own)
        else:
            kernel = _kernel(program, node, found, int(strip))
        program = program.changed(kernels=(*program.kernels, kernel))
    words = f"{len(pools)} pooling{'s' if len(pools) > 1 else ''} by rows and columns"
    return program.changed(steps=(*program.steps, words))


def _pools(program: Program, only: frozenset[str] = frozenset()) -> tuple[list[Pool], list[str]]:
    found: list[Pool] = []
    reasons: list[str] = []
    for node in program.library_calls:
        if only and node.name not in only:
            continue
        pool = pool_of(program.graph, node)
        if isinstance(pool, str):
            reasons.append(f"{node.name} is {pool}" if pool.startswith("pooling") else pool)
        elif pool is not None and not _is_global(program.graph, node, pool):
            found.append(pool)
    return found, reasons


def _is_global(graph: OpGraph, node: Node, pool: Pool) -> bool:
    """A mean of whole planes is a reduction, which loops fuse on their own."""
    made = graph.spec_of(pool.made).shape
    return pool.adaptive and pool.kind == "avg" and prod(made[-pool.dims :]) == 1


def _delayed(program: Program, pool: Pool) -> tuple[Program, str]:
    """What keeps order and stands before a max pooling is done after it, call by call."""
    name = pool.node
    while pool.kind == "max" and not pool.adaptive:
        node = program.graph.by_name[name]
        if isinstance(node.result, tuple) or not _free(program, node):
            break
        moved = delayed(program.graph, node)
        if moved is None:
            break
        graph, name = moved
        program = program.changed(graph=graph)
    return program, name


def _free(program: Program, node: Node) -> bool:
    """Whether no kernel computes, or reads what comes of, the call before a pooling."""
    used = {ref.ref for kernel in program.kernels for ref in kernel.reads}
    return not ({ref.ref for ref in node.refs} & program.kernel_of.keys()) and node.name not in used


def _output_shape(graph: OpGraph, pool: Pool) -> tuple[str, ...]:
    """Python expressions for the result's sizes."""
    source, rank = variable(pool.source), len(graph.spec_of(pool.source).shape)
    made = graph.spec_of(pool.made).shape
    sizes = [f"{source}.shape[{dim}]" for dim in range(rank)]
    for axis in range(3 - pool.dims, 3):
        dim = rank - 3 + axis
        sizes[dim] = str(made[dim]) if pool.adaptive else output_size(pool, axis, sizes[dim])
    return tuple(sizes)


def _checks(graph: OpGraph, pool: Pool) -> tuple[Check, ...]:
    """What the library would complain of: windows that the input has no room for."""
    source, rank = variable(pool.source), len(graph.spec_of(pool.source).shape)
    found = []
    for axis in range(3 - pool.dims, 3):
        dim = rank - 3 + axis
        reach = pool.dilation[axis] * (pool.window[axis] - 1) + 1 - 2 * pool.padding[axis]
        found.append(
            Check(
                left=f"({source}.shape[{dim}] < {max(reach, 1)})",
                right="False",
                sentence=f"dimension {dim} of what is pooled is shorter than a window",
            )
        )
    return tuple(found)


def _fused(program: Program, pool: Pool, shape: tuple[str, ...]) -> Fused | None:
    """What can be done to planes, or to rows, of the result while they are in cache."""
    if pool.made.index is not None:
        return None
    spec = program.graph.spec_of(pool.made)
    outer = len(spec.shape) - pool.dims
    planes = None
    if prod(spec.shape[outer:]) * 8 <= PLANE_BYTES:
        planes = find_epilogue(program, pool.node, outer, shape)
    rows = find_epilogue(program, pool.node, len(spec.shape) - 1, shape)
    if planes is not None and (rows is None or len(planes.nodes) > len(rows.nodes)):
        return Fused(planes, planes=True)
    return Fused(rows, planes=False) if rows is not None else None


def _kernel(program: Program, node: Node, pool: Pool, strip: int) -> Kernel:
    graph = program.graph
    shape = _output_shape(graph, pool)
    fused = _fused(program, pool, shape)
    epilogue = fused.epilogue if fused is not None else None
    made = graph.spec_of(pool.made)
    own = Written(ref=pool.made, shape=f"({', '.join(shape)},)", spec=made)
    writes: tuple[Written, ...] = (own,)
    if epilogue is not None:
        writes = (*([own] if epilogue.keeps_anchor else []), *epilogue.writes)
    reads = (pool.source, *(epilogue.reads if epilogue is not None else ()))
    sizes = (*(epilogue.sizes if epilogue is not None else ()), *_sizes(graph, pool, shape))
    name = f"{operator(node)}_{node.name}" if operator(node) not in node.name else node.name
    return Kernel(
        name=name,
        source=print_pool(pool, name, strip, fused),
        signature="p" * (len(reads) + len(writes)) + "i" * len(sizes),
        nodes=(node.name, *(epilogue.nodes if epilogue is not None else ())),
        reads=reads,
        writes=writes,
        sizes=sizes,
        checks=(*_checks(graph, pool), *(epilogue.checks if epilogue is not None else ())),
        note=", ".join(
            [operator(node), *_operators(graph, epilogue.nodes if epilogue is not None else ())]
        ),
        moved_bytes=sum(graph.spec_of(ref).nbytes for ref in reads)
        + sum(written.spec.nbytes for written in writes),
        operations=_joins(graph, pool) + (epilogue.operations if epilogue is not None else 0),
    )


def _triton_kernel(
    program: Program, node: Node, pool: Pool, parameters: dict[str, Parameter]
) -> Kernel:
    """The pooling as Triton, with the pointwise work on its results."""
    graph, shape = program.graph, _output_shape(program.graph, pool)
    indexed = pool.made.index is not None
    epilogue = None if indexed else find_triton_epilogue(program, pool.made, shape)
    spec, source = graph.spec_of(pool.made), graph.spec_of(pool.source)
    outer, kept = len(spec.shape) - pool.dims, epilogue is None or epilogue.keeps_anchor
    own = Written(ref=pool.made, shape=f"({', '.join(shape)},)", spec=spec)
    writes = (*([own] if kept else []), *(epilogue.writes if epilogue else ()))
    reads = (pool.source, *(epilogue.reads if epilogue else ()))
    sizes = _sizes(graph, pool, shape)
    sizes += tuple(Size(name=f"size{dim}", expression=shape[dim]) for dim in range(1, outer))
    name = f"{operator(node)}_{node.name}" if operator(node) not in node.name else node.name
    nodes = (node.name, *(epilogue.nodes if epilogue else ()))
    note = ", ".join(_operators(graph, nodes))
    block, warps = triton.settings(parameters)
    ones = (1,) * (3 - pool.dims)
    before, after = (*ones, *source.shape[-pool.dims :]), (*ones, *spec.shape[-pool.dims :])
    printed = triton.print_pool(
        triton.Wanted(pool, name, note, before, after, outer, epilogue, kept, block, warps)
    )
    return Kernel(
        name=name,
        source=printed.source,
        language="triton",
        helpers=printed.helpers,
        signature="p" * (len(reads) + len(writes)) + "i" * len(sizes),
        nodes=nodes,
        reads=reads,
        writes=writes,
        sizes=sizes,
        checks=(*_checks(graph, pool), *(epilogue.checks if epilogue else ())),
        note=note,
        moved_bytes=sum(graph.spec_of(ref).nbytes for ref in dict.fromkeys(reads))
        + sum(written.spec.nbytes for written in writes),
        operations=_joins(graph, pool) + (epilogue.operations if epilogue else 0),
    )


def _operators(graph: OpGraph, names: Sequence[str]) -> list[str]:
    return [operator(graph.by_name[name]).strip("_") for name in names]


def _sizes(graph: OpGraph, pool: Pool, shape: tuple[str, ...]) -> tuple[Size, ...]:
    """The number of planes, then input and output sizes of three dimensions."""
    source, rank = variable(pool.source), len(graph.spec_of(pool.source).shape)
    outer = rank - pool.dims
    planes = " * ".join(f"{source}.shape[{dim}]" for dim in range(outer)) or "1"
    names = ("depth", "height", "width")
    dims = [None] * (3 - pool.dims) + list(range(outer, rank))
    before = [f"{source}.shape[{dim}]" if dim is not None else "1" for dim in dims]
    after = [shape[dim] if dim is not None else "1" for dim in dims]
    return (
        Size(name="planes", expression=planes),
        *(Size(name=n, expression=e) for n, e in zip(names, before, strict=True)),
        *(Size(name=f"out_{n}", expression=e) for n, e in zip(names, after, strict=True)),
    )


def _joins(graph: OpGraph, pool: Pool) -> int:
    """Scalar operations: rows of each window over the whole width, then its columns."""
    source, made = graph.spec_of(pool.source), graph.spec_of(pool.made)
    if pool.adaptive:
        return 2 * source.numel
    lines = made.numel // made.shape[-1]
    return lines * source.shape[-1] * pool.rows + made.numel * pool.window[2]
