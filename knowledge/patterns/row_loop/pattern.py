"""Fuses every island of pointwise and reduction work into one loop: C++, Triton or CUDA C++."""

from typing import Literal, cast

from knowledge.loops.cost import RETURNED_FROM, Machine, loses, only_of, program_ms
from knowledge.loops.cost import moved_mb as moved
from knowledge.loops.cuda_shape import CudaWish
from knowledge.loops.islands import find_islands
from knowledge.loops.kernel import make_kernel
from knowledge.loops.plan import Options
from knowledge.loops.triton_tile import Wish
from knowledge.opgraph import OpGraph
from knowledge.pattern import Parameter, Proposal, Refusal, Situation, Step
from knowledge.patterns.convolution.fixed_norms import with_norms_apart
from knowledge.patterns.row_loop import cuda, triton
from knowledge.patterns.row_loop.spreads import with_spreads_apart
from knowledge.program import Kernel, Program

NAME = "row_loop"
# Nothing measured backs these up beyond an order of preference among variants that should be
# equally fast.
LIBM_PENALTY, DOUBLE_PENALTY = 0.97, 0.96
# Results of this size don't stay in the innermost cache, and streaming stores spare reading a line
# before it is written: a ReLU on one core took 0.75 times as long, norms on two cores under the
# judge 0.96. From `RETURNED_FROM` bytes on, malloc takes new pages of the system for each result,
# which the kernel has just zeroed into cache: there they take 1.4 times as long.
STREAMED_FROM = 4 << 20
STREAMING_GAIN, STREAMING_PENALTY = 1.03, 0.7


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """One proposal for each setting of the tunables worth trying; all fuse every island.

    But where the library should do some islands faster: then the first ones leave those to it.
    """
    fused, reasons = _fused(program, {})
    kernels = list(fused.kernels[len(program.kernels) :])
    if not kernels:
        told = "; ".join(dict.fromkeys(reasons.values())) or "the op has no call"
        return Refusal(pattern=NAME, reason=f"No call can be fused: {told[:300]}.")
    machine = Machine.of(situation)
    only = _gaining(program, fused, kernels, machine)
    if not only:
        return _proposals(program, fused, situation, {})
    chosen = _fused(program, {"only": only})[0]
    every = _proposals(program, fused, situation, {})[0]
    words = f"{every.title}, those too that the library should do faster"
    last = every.model_copy(update={"title": words})
    return [*_proposals(program, chosen, situation, {"only": only}), last]


def _gaining(program: Program, fused: Program, kernels: list[Kernel], machine: Machine) -> str:
    """The parameter `only`: a call of each kernel that does not lose, where some do."""
    names = [_telling(program, kernel) for kernel in kernels]
    kept = [
        name
        for name, kernel in zip(names, kernels, strict=True)
        if not loses(fused, kernel, machine)
    ]
    return only_of(kept, names)


def _telling(program: Program, kernel: Kernel) -> str:
    """The call that names a kernel's island: its last that the op has however it is written."""
    given = [name for name in kernel.nodes if name in program.graph.by_name]
    return (given or list(kernel.nodes))[-1]


def _proposals(
    program: Program, fused: Program, situation: Situation, given: dict[str, Parameter]
) -> list[Proposal]:
    """One for each setting of the tunables, beside those that are given."""
    machine = Machine.of(situation)
    kernels = list(fused.kernels[len(program.kernels) :])
    before, after = program_ms(program, machine), program_ms(fused, machine)
    calls = sum(len(kernel.nodes) for kernel in kernels)
    fusion = f"{_counted(calls, 'call')} into {_counted(len(kernels), 'loop')}"
    arithmetic = (
        f"Call by call the op moves {moved(program):.1f} MB through memory ({before:.3f} ms); "
        f"fusing {fusion} leaves {moved(fused):.1f} MB, at {situation.bandwidth_gbps:.1f} GB/s "
        f"{after:.3f} ms: {before / after:.2f}x."
    )
    title = f"fuse {fusion}"
    return [
        Proposal(
            step=Step(pattern=NAME, parameters={**parameters, **given}),
            title=f"{title} ({words})",
            speedup=before / after * factor,
            arithmetic=f"{arithmetic} {why}".strip(),
        )
        for parameters, words, factor, why in _VARIANTS[program.backend](kernels)
    ]


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number != 1 else ''}"


def _variants(kernels: list[Kernel]) -> list[tuple[dict[str, Parameter], str, float, str]]:
    """Tunables worth trying for these kernels, with their names, their expected factor, and why."""
    first: dict[str, Parameter] = {"exp": "inline", "accumulate": "float", "streaming": False}
    found = [(first, "inline functions", 1.0, "")]
    sources = " ".join(kernel.source for kernel in kernels)
    written = [one.spec for kernel in kernels for one in kernel.writes]
    largest = max((spec.nbytes for spec in written if spec.dtype == "float32"), default=0)
    if largest >= STREAMED_FROM:
        factor = STREAMING_PENALTY if largest >= RETURNED_FROM else STREAMING_GAIN
        why = "Streaming stores spare reading the output first, if its pages are there already."
        found.append(({**first, "streaming": True}, "streaming stores", factor, why))
    if "vector_" in sources:
        why = "The library's vector functions in place of polynomials: as exact, seldom faster."
        found.append(({**first, "exp": "libm"}, "the library's functions", LIBM_PENALTY, why))
    if "reduction(+" in sources:
        why = "Sums in double: more exact, and half as many lanes."
        found.append(({**first, "accumulate": "double"}, "sums in double", DOUBLE_PENALTY, why))
    return found


def apply(program: Program, step: Step) -> Program:
    """The program with every island fused.

    Raises:
        ValueError: nothing in the program can be fused, or a tunable has an unknown value.
    """
    fused, _ = _fused(program, step.parameters)
    made = len(fused.kernels) - len(program.kernels)
    if not made:
        raise ValueError("row_loop: there is nothing to fuse")
    return fused.changed(steps=(*fused.steps, f"calls fused into {_counted(made, 'row loop')}"))


_VARIANTS = {"cpp": _variants, "triton": triton.variants, "cuda": cuda.variants}


def _settings(
    program: Program, parameters: dict[str, Parameter]
) -> tuple[Options, Wish | CudaWish | None]:
    """How kernels are printed; the kind of wish says in which language."""
    if program.backend == "cuda":
        return cuda.settings(parameters)
    if program.backend == "triton":
        return triton.settings(parameters)
    return _options(parameters), None


def _options(parameters: dict[str, Parameter]) -> Options:
    exp = parameters.get("exp", "inline")
    accumulate = parameters.get("accumulate", "float")
    streaming = parameters.get("streaming", False)
    if exp not in ("inline", "libm") or accumulate not in ("float", "double"):
        raise ValueError(f"row_loop: unknown tunables {parameters}")
    return Options(
        cast(Literal["inline", "libm"], exp),
        cast(Literal["float", "double"], accumulate),
        bool(streaming),
    )


def _fused(program: Program, parameters: dict[str, Parameter]) -> tuple[Program, dict[str, str]]:
    """The program with its islands in kernels, and for each call of the library's, why."""
    own = {name: value for name, value in parameters.items() if name != "only"}
    options, wish = _settings(program, own)
    only = Step(pattern=NAME, parameters=parameters).only
    told: dict[str, str] = {}

    def make(given: Program) -> Program:
        kernels, reasons = _kernels(given, options, wish, only)
        told.clear()
        told.update(reasons)
        return given.changed(kernels=(*given.kernels, *kernels))

    return with_spreads_apart(program, lambda given: with_norms_apart(given, make)), told


def _kernels(
    program: Program, options: Options, wish: Wish | CudaWish | None, only: frozenset[str]
) -> tuple[list[Kernel], dict[str, str]]:
    """A kernel an island of what is left, and for each call that goes to the library, why.

    Only for islands with a call in `only`, if that names any.
    """
    graph = program.graph
    islands, reasons = find_islands(graph, tuple(kernel.nodes for kernel in program.kernels))
    kernels: list[Kernel] = []
    for island in islands:
        if only and only.isdisjoint(island.nodes):
            continue
        # The most telling call gives the kernel its name: the last one that is not a view.
        name = f"fused_{len(kernels)}_{_name(graph, island.nodes)}"
        made = make_kernel(graph, island, name, options, wish)
        if isinstance(made, str):
            reasons = {**reasons, **dict.fromkeys(island.nodes, made)}
        else:
            kernels.append(made)
    return kernels, reasons


def _name(graph: OpGraph, nodes: tuple[str, ...]) -> str:
    operators = [graph.by_name[node].target.split(".")[1].strip("_") for node in nodes]
    seen = list(dict.fromkeys(operators))
    return "_".join(seen) if len(seen) <= 3 else f"{seen[0]}_to_{seen[-1]}"
