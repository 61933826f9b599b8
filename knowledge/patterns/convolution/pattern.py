"""Takes convolutions from the library, with the work that is done to their results."""

from knowledge.loops.cost import Machine, gains, only_of, program_ms
from knowledge.pattern import Parameter, Proposal, Refusal, Situation, Step
from knowledge.patterns.convolution import kernels, triton
from knowledge.patterns.convolution.fixed_norms import with_norms_apart
from knowledge.patterns.convolution.window import Call, is_convolution, read_call
from knowledge.program import Kernel, Program

NAME = "convolution"
# Apart, the result goes through memory once more; only a costly epilogue that keeps threads from
# sharing an image evenly makes up for that.
APART_FACTOR = 0.9


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """Own kernels for the convolutions that should gain, then for all, then with no epilogue."""
    calls, reasons = _calls(program)
    if not calls:
        told = "; ".join(reasons) or "the op has no convolution"
        return Refusal(pattern=NAME, reason=f"No convolution can be taken: {told[:300]}.")
    machine = Machine.of(situation)
    gaining = [
        call.name
        for call in calls
        if gains(program, _kernel(program, call, NAME, {}), (call.name,), machine)
    ]
    only = only_of(gaining, [call.name for call in calls])
    first: dict[str, Parameter] = {"epilogue": True, "only": only}
    first |= triton.DEFAULTS if program.backend == "triton" else {}
    variants: list[tuple[dict[str, Parameter], str, float]] = [(first, "", 1.0)]
    if only:
        words = ", those too that the library should do faster"
        variants.append(({**first, "only": ""}, words, 1.0))
    fused = _applied(program, Step(pattern=NAME, parameters=first))
    if any(len(kernel.nodes) > 1 for kernel in fused.kernels[len(program.kernels) :]):
        variants.append(({**first, "epilogue": False}, ", what follows apart", APART_FACTOR))
    if program.backend == "triton":
        wish = triton.settings({})
        tilings = [triton.tiling_for(program, call, wish) for call in calls]
        variants += [
            ({**first, **changed}, words, factor)
            for changed, words, factor in triton.variants(
                [tiling for tiling in tilings if not isinstance(tiling, str)]
            )
        ]
    return [_proposal(program, machine, *variant) for variant in variants]


def apply(program: Program, step: Step) -> Program:
    """The program with a kernel for every convolution that the step names, or for all.

    Raises:
        ValueError: no convolution is left to take, or a tunable has an unknown value.
    """
    own = _own(step.parameters)
    if program.backend == "triton":
        triton.settings(own)
    elif own:
        raise ValueError(f"convolution: unknown tunables {step.parameters}")
    applied = _applied(program, step)
    if len(applied.kernels) == len(program.kernels):
        raise ValueError("convolution: there is no convolution to take")
    return applied


def _own(parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    """The tunables that belong to one backend."""
    return {name: value for name, value in parameters.items() if name not in ("epilogue", "only")}


def _kernel(program: Program, call: Call, name: str, parameters: dict[str, Parameter]) -> Kernel:
    fused = bool(parameters.get("epilogue", True))
    if program.backend != "triton":
        return kernels.make_kernel(program, call, name, fused)
    return triton.make_kernel(
        program,
        call,
        name,
        fused,
        kernels.checks_of(program, call),
        triton.settings(_own(parameters)),
    )


def _applied(program: Program, step: Step) -> Program:
    calls = [call for call in _calls(program)[0] if not step.only or call.name in step.only]
    names = [call.name for call in calls]
    applied = with_norms_apart(program, lambda given: _taken(given, names, step), names)
    made = applied.kernels[len(program.kernels) :]
    inside = sum(len(kernel.nodes) - 1 for kernel in made)
    words = f"{_counted(len(made), 'convolution')} done by own kernels"
    words += f", {_counted(inside, 'call')} fused in" if inside else ""
    return applied.changed(steps=(*applied.steps, words))


def _taken(program: Program, names: list[str], step: Step) -> Program:
    """The program with a kernel for each convolution of these names."""
    for call in [call for call in _calls(program)[0] if call.name in names]:
        kernel = _kernel(program, call, f"convolution_{len(program.kernels)}", step.parameters)
        program = program.changed(kernels=(*program.kernels, kernel))
    return program


def _calls(program: Program) -> tuple[list[Call], list[str]]:
    """The convolutions that can be taken, and why others can't."""
    calls, reasons = [], []
    for node in program.library_calls:
        if is_convolution(node):
            dtypes = triton.DTYPES if program.backend == "triton" else ("float32",)
            read = read_call(program.graph, node, dtypes)
            if isinstance(read, str):
                reasons.append(read)
            else:
                calls.append(read)
    return calls, reasons


def _proposal(
    program: Program,
    machine: Machine,
    parameters: dict[str, Parameter],
    words: str,
    factor: float,
) -> Proposal:
    """These parameters, with the speedup they should bring."""
    step = Step(pattern=NAME, parameters=parameters)
    applied = _applied(program, step)
    new = applied.kernels[len(program.kernels) :]
    before, after = program_ms(program, machine), program_ms(applied, machine)
    flops = sum(kernel.flops for kernel in new)
    share = flops / sum(kernel.flops / kernel.efficiency for kernel in new)
    inside = sum(len(kernel.nodes) - 1 for kernel in new)
    arithmetic = (
        f"{flops / 1e9:.3f} GFLOP in {_counted(len(new), 'convolution')} at {share:.0%} of "
        f"{machine.peak_gflops:.0f} GFLOP/s, and {_counted(inside, 'call')} done while results are "
        f"in cache: {after:.3f} ms for the whole op. Before: {before:.3f} ms, so "
        f"{before / after:.2f}x."
    )
    return Proposal(
        step=step,
        title=f"own kernels for {_counted(len(new), 'convolution')}{words}",
        speedup=before / after * factor,
        arithmetic=arithmetic,
    )


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number != 1 else ''}"
