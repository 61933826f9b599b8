"""Statistics of columns as kernels of their own; what follows a batch norm stays pointwise work."""

from math import prod

from knowledge.loops.cost import compared
from knowledge.loops.islands import find_islands
from knowledge.loops.kernel import make_kernel
from knowledge.loops.plan import Options
from knowledge.loops.triton_tile import Wish
from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.pattern import Proposal, Refusal, Situation, Step
from knowledge.patterns.algebra.edit import argument, operator
from knowledge.patterns.column_statistics import triton
from knowledge.patterns.column_statistics.columns import (
    BatchNorm,
    Statistics,
    batch_norm_of,
    split,
    statistics_of,
)
from knowledge.patterns.column_statistics.printing import print_statistics
from knowledge.program import Backend, Check, Kernel, Program, Size, Written, variable

NAME = "column_statistics"
# Conversion, difference, sum, and product and sum of squares, in double: half as many lanes.
OPERATIONS = 8


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """One proposal that takes every batch norm in training and every reduction around columns."""
    found, reasons = _found(program)
    if not found:
        told = "; ".join(dict.fromkeys(reasons)) or "the op has no statistics of columns"
        return Refusal(pattern=NAME, reason=f"No statistics can be gathered here: {told}.")
    step = Step(pattern=NAME, parameters={"only": ""})
    speedup, arithmetic = compared(program, apply(program, step), situation)
    return [Proposal(step=step, title=_words(len(found)), speedup=speedup, arithmetic=arithmetic)]


def _words(count: int) -> str:
    return f"statistics of columns in one sweep{f' (x{count})' if count > 1 else ''}"


def apply(program: Program, step: Step) -> Program:
    """The program with statistics gathered by kernels; batch norms become pointwise calls.

    Raises:
        ValueError: there are no such statistics.
    """
    found, _ = _found(program, step.only)
    if not found:
        raise ValueError("column_statistics: there is nothing to gather")
    # A later one may read what an earlier one makes, so each is looked at when its turn comes.
    names = []
    for one in found:
        if isinstance(one, BatchNorm):
            norm = batch_norm_of(program.graph, program.graph.by_name[one.node])
            assert isinstance(norm, BatchNorm)
            graph, name = split(program.graph, norm)
            kernel = norm_kernel(graph, norm, graph.by_name[name], 1, program.backend)
            program = program.changed(graph=graph, kernels=(*program.kernels, kernel))
            names.append(name)
    program = _normalised(program, names) if names else program
    for one in found:
        if isinstance(one, Statistics):
            again = statistics_of(program.graph, program.graph.by_name[one.node])
            assert isinstance(again, Statistics)
            if program.can_take((again.node,), (again.source,)):
                kernels = (*program.kernels, _kernel(program, again))
                program = program.changed(kernels=kernels)
    return program.changed(steps=(*program.steps, _words(len(found))))


def _normalised(program: Program, names: list[str]) -> Program:
    """The program with loops for the calls that read these statistics, and all that fuses there.

    Without them they would pass for library calls, and the statistics for a loss. Norms whose
    results meet are one loop's, so loops come when all statistics are there.
    """
    graph = program.graph
    islands, _ = find_islands(graph, tuple(kernel.nodes for kernel in program.kernels))
    readers = {node.name for name in names for node in graph.users[name]}
    made = [
        make_kernel(graph, island, f"{names[0]}_normalised_{at}", *_printed_as(program))
        for at, island in enumerate(islands)
        if readers & set(island.nodes)
    ]
    loops = [kernel for kernel in made if isinstance(kernel, Kernel)]
    return program.changed(kernels=(*program.kernels, *loops))


def _printed_as(program: Program) -> tuple[Options, Wish | None]:
    """How the loops that follow are printed: in the language of the program's kernels."""
    if program.backend == "triton":
        return Options(exp="libm"), Wish()
    return Options(), None


def _found(
    program: Program, only: frozenset[str] = frozenset()
) -> tuple[list[BatchNorm | Statistics], list[str]]:
    found: list[BatchNorm | Statistics] = []
    reasons: list[str] = []
    used = {ref.ref for kernel in program.kernels for ref in kernel.reads}
    for node in program.library_calls:
        if only and node.name not in only:
            continue
        norm = batch_norm_of(program.graph, node)
        one = norm if norm is not None else statistics_of(program.graph, node)
        if isinstance(norm, BatchNorm) and node.name in used:
            one = "another kernel reads the batch norm"
        if isinstance(one, str):
            reasons.append(one)
        elif one is not None:
            found.append(one)
    return found, reasons


def _product(source: str, dims: range) -> str:
    return " * ".join(f"{source}.shape[{dim}]" for dim in dims) or "1"


def _sizes(source: Ref, first: int, last: int, rank: int) -> tuple[Size, ...]:
    name = variable(source)
    return (
        Size(name="outer", expression=_product(name, range(first))),
        Size(name="columns", expression=_product(name, range(first, last))),
        Size(name="inner", expression=_product(name, range(last, rank))),
    )


def _checks(
    source: Ref, reduced: set[int], first: int, last: int, rank: int, planes: bool
) -> tuple[Check, ...]:
    """What must hold of sizes: dimensions of one element that were taken for others keep it."""
    name = variable(source)
    apart = {dim for dim in range(rank) if not first <= dim < last}
    single = apart - reduced if planes else (apart - reduced) | {*range(last, rank)}
    found = [
        Check(
            left=f"{name}.shape[{dim}]", right="1",
            sentence=f"dimension {dim} of what statistics are gathered of should be 1",
        )
        for dim in sorted(single)
    ]  # fmt: skip
    sentence = "statistics of nothing are gathered"
    return (*found, Check(left=f"({name}.numel() > 0)", right="True", sentence=sentence))


def norm_kernel(
    graph: OpGraph, norm: BatchNorm, node: Node, axis: int, language: Backend = "cpp"
) -> Kernel:
    """The statistics of a batch norm: mean, scale, bias, new running mean and variance.

    `node` gathers them; `axis` is the dimension of channels in what it reads.
    """
    read = node.refs[0]
    spec = graph.spec_of(read)
    rank, name = len(spec.shape), f"{node.name}_kernel"
    made = node.result
    assert isinstance(made, tuple)
    channels = f"{variable(read)}.shape[{axis}]"
    assert made[0] is not None
    ones = ", ".join(channels if size != 1 else "1" for size in made[0].shape)
    broadcast = f"({ones},)" if made[0].numel > 1 else f"{made[0].shape}"
    shaped = 2 + (norm.bias is not None)
    writes = tuple(
        Written(
            ref=Ref(ref=node.name, index=at), spec=one,
            shape=broadcast if at < shaped else f"{variable(node.refs[-1])}.shape",
        )
        for at, one in enumerate(made)
        if one is not None
    )  # fmt: skip
    reads, planes = node.refs, prod(spec.shape[axis + 1 :]) > 1
    note = "batch norm: mean and scale of every channel, and the running statistics"
    if language == "triton":
        source = triton.print_statistics(name, spec.dtype, triton.norm_formulas(norm), planes, note)
    else:
        source = print_statistics(name, spec.dtype, *_norm_formulas(norm), planes)
    return Kernel(
        name=name,
        source=source,
        language=language,
        signature="p" * (len(reads) + len(writes)) + "iii",
        nodes=(node.name,),
        reads=reads,
        writes=writes,
        sizes=_sizes(read, axis, axis + 1, rank),
        checks=_checks(read, {*range(rank)} - {axis}, axis, axis + 1, rank, planes),
        note=note,
        moved_bytes=spec.nbytes,
        operations=spec.numel * OPERATIONS,
    )


def _norm_formulas(norm: BatchNorm) -> tuple[list[str], list[str]]:
    """Parameters and statements of a batch norm's statistics kernel."""
    inputs = ["const element* x"]
    outputs = ["element* mean", "element* scale"]
    scale = f"1 / std::sqrt(all.squares / all.count + {norm.epsilon!r})"
    if norm.weight is not None:
        inputs.append("const element* weight")
        scale = f"weight[c] / std::sqrt(all.squares / all.count + {norm.epsilon!r})"
    results = ["mean[c] = all.mean;", f"scale[c] = {scale};"]
    if norm.bias is not None:
        inputs.append("const element* bias")
        outputs.append("element* offset")
        results.append("offset[c] = bias[c];")
    if norm.running is not None:
        inputs += ["const element* running_mean", "const element* running_variance"]
        outputs += ["element* new_mean", "element* new_variance"]
        kept, taken = f"{1 - norm.momentum!r}", f"{norm.momentum!r}"
        results += [
            f"new_mean[c] = {kept} * running_mean[c] + {taken} * all.mean;",
            f"new_variance[c] =\n            {kept} * running_variance[c]"
            f" + {taken} * (all.squares / (all.count - 1));",
        ]
    return [*inputs, *outputs], results


def _kernel(program: Program, one: Statistics) -> Kernel:
    """A reduction around columns."""
    graph = program.graph
    node, spec = graph.by_name[one.node], graph.spec_of(one.source)
    rank, name = len(spec.shape), f"{one.node}_columns"
    several = isinstance(node.result, tuple)
    refs = [Ref(ref=node.name, index=at) for at in (0, 1)] if several else [Ref(ref=node.name)]
    keep = len(graph.spec_of(refs[0]).shape) == rank
    source = variable(one.source)
    given = argument(node, 1, "dim")
    assert isinstance(given, list)
    reduced = {int(dim) % rank for dim in given if isinstance(dim, int)}
    sizes = [
        "1" if dim in reduced else f"{source}.shape[{dim}]"
        for dim in range(rank)
        if keep or dim not in reduced
    ]
    writes = tuple(
        Written(ref=ref, shape=f"({', '.join(sizes)},)", spec=graph.spec_of(ref)) for ref in refs
    )
    planes, note = prod(spec.shape[one.last :]) > 1, f"{operator(node)} around columns"
    if program.backend == "triton":
        source = triton.print_statistics(name, spec.dtype, triton.formulas(one), planes, note)
    else:
        parameters = ["const element* x", *(f"element* out{at}" for at in range(len(refs)))]
        source = print_statistics(name, spec.dtype, parameters, _formulas(one), planes)
    return Kernel(
        name=name,
        source=source,
        language=program.backend,
        signature="p" * (1 + len(writes)) + "iii",
        nodes=(node.name,),
        reads=(one.source,),
        writes=writes,
        sizes=_sizes(one.source, one.first, one.last, rank),
        checks=_checks(one.source, reduced, one.first, one.last, rank, planes),
        note=note,
        moved_bytes=spec.nbytes,
        operations=spec.numel * OPERATIONS,
    )


def _formulas(one: Statistics) -> list[str]:
    variance = f"all.squares / (all.count - {one.correction!r})"
    if one.correction:
        # Too few elements have no variance: the quotient's sign must not turn it into infinity.
        variance = f"all.squares / std::fmax(all.count - {one.correction!r}, 0.0)"
    # Welford's mean, which the library returns here, is NaN once an infinity has come by.
    mean = "std::isnan(all.squares) ? all.squares : all.mean"
    formulas = {
        "sum": ["all.mean * all.count"],
        "mean": ["all.mean"],
        "var": [variance],
        "std": [f"std::sqrt({variance})"],
        "var_mean": [variance, mean],
        "std_mean": [f"std::sqrt({variance})", mean],
    }[one.kind]
    return [f"out{at}[c] = {formula};" for at, formula in enumerate(formulas)]
