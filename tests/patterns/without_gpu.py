"""What tests of Triton kernels share where there is no GPU: the interpreter, and the compiler."""

from collections.abc import Mapping

from knowledge.device import load_devices
from knowledge.emit import emit
from knowledge.pattern import Parameter, Step, load_pattern
from knowledge.program import Program
from tests.patterns.workshop import build
from tools.backends.triton.compile import Compiled, CompiledKernel, compile_candidates
from tools.backends.triton.interpret import Candidate, Interpreted, interpret

DEVICES = tuple(load_devices()[name] for name in ("a100-sxm4-80gb", "h100-sxm5", "b200"))
Parameters = Mapping[str, Parameter]


def in_triton(pattern: str, source: str, parameters: Parameters | None = None) -> Program:
    """A reference with what a pattern takes of it in Triton kernels."""
    program = Program.of(build(source, ()).graph, source, "triton")
    step = Step(pattern=pattern, parameters=dict(parameters or {}))
    return load_pattern(pattern).apply(program, step)


def complaints(
    pattern: str, sources: Mapping[str, str], parameters: Parameters | None = None
) -> dict[str, object]:
    """What is wrong with each reference's candidate; all run in one interpreter."""
    given = [
        Candidate(candidate=emit(in_triton(pattern, source, parameters)), reference=source)
        for source in sources.values()
    ]
    answers = zip(sources, interpret(given, 300.0), strict=True)
    return {name: one for name, one in answers if one != Interpreted(complaints=())}


def compiled(
    pattern: str, given: Mapping[str, tuple[str, Parameters]]
) -> dict[str, tuple[CompiledKernel, ...]]:
    """The kernels of each reference, with these tunables, for sm_80, sm_90 and sm_100.

    Each fits its device's shared memory, or it would not have been compiled.
    """
    pairs = [
        (emit(in_triton(pattern, source, parameters)), source)
        for source, parameters in given.values()
    ]
    found: dict[str, tuple[CompiledKernel, ...]] = {}
    for name, answer in zip(given, compile_candidates(pairs, DEVICES, 600.0), strict=True):
        assert isinstance(answer, Compiled), f"{name}: {answer}"
        assert {kernel.capability for kernel in answer.kernels} == {80, 90, 100}
        found[name] = answer.kernels
    return found


def spilling(kernels: Mapping[str, tuple[CompiledKernel, ...]]) -> list[str]:
    """Those that run out of registers."""
    return [
        f"{name}: {kernel.function} for sm_{kernel.capability}"
        for name, several in kernels.items()
        for kernel in several
        if kernel.spill_store_bytes or kernel.spill_load_bytes
    ]


def multiplies(kernel: CompiledKernel) -> bool:
    """Whether tensor cores are used."""
    counts = kernel.tensor_core
    return counts.wgmma + counts.mma + counts.tcgen05 > 0
