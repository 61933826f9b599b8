"""What tests of patterns printed as Triton share: candidates interpreted together, and compiled."""

from collections.abc import Mapping

from knowledge.device import load_devices
from knowledge.emit import emit
from knowledge.pattern import Parameter, Step, load_pattern
from knowledge.program import Program
from tests.patterns.workshop import build
from tools.backends.triton.compile import Compiled, CompiledKernel, compile_candidates
from tools.backends.triton.interpret import Candidate, Interpreted, interpret

# What may be left to the library: it moves nothing.
VIEWS = ("aten.slice", "aten.view", "aten.unsqueeze")
DEVICES = [load_devices()[name] for name in ("a100-sxm4-80gb", "h100-sxm5", "b200")]


def in_triton(source: str, pattern: str, parameters: Mapping[str, Parameter] | None = None) -> str:
    """A reference with one pattern applied, loops for what is left, and nothing for the library."""
    graph = build(source, ()).graph
    program = Program.of(graph, source, "triton")
    step = Step(pattern=pattern, parameters=dict(parameters or {}))
    program = load_pattern(pattern).apply(program, step)
    if not all(node.target.startswith(VIEWS) for node in program.library_calls):
        program = load_pattern("row_loop").apply(program, Step(pattern="row_loop"))
    assert {kernel.language for kernel in program.kernels} == {"triton"}
    assert all(node.target.startswith(VIEWS) for node in program.library_calls)
    return emit(program)


def complaints(
    sources: Mapping[str, str], pattern: str, parameters: Mapping[str, Parameter] | None = None
) -> dict[str, object]:
    """What is wrong with the candidate of each reference; all run in one interpreter."""
    given = [
        Candidate(candidate=in_triton(source, pattern, parameters), reference=source)
        for source in sources.values()
    ]
    answers = interpret(given, 400.0)
    return {
        name: answer
        for name, answer in zip(sources, answers, strict=True)
        if answer != Interpreted(complaints=())
    }


def compiled(given: Mapping[str, tuple[str, str]]) -> dict[str, tuple[CompiledKernel, ...]]:
    """The kernels of candidates, each with its reference, for sm_80, sm_90 and sm_100.

    Shared memory is known to suffice for what compiles.
    """
    found: dict[str, tuple[CompiledKernel, ...]] = {}
    answers = compile_candidates(list(given.values()), DEVICES, 400.0)
    for name, answer in zip(given, answers, strict=True):
        assert isinstance(answer, Compiled), (name, answer)
        assert {kernel.capability for kernel in answer.kernels} == {80, 90, 100}
        found[name] = answer.kernels
    return found


def spilled(kernels: Mapping[str, tuple[CompiledKernel, ...]]) -> set[str]:
    """The names of those that have a kernel which spills registers."""
    return {
        name
        for name, made in kernels.items()
        if any(one.spill_store_bytes or one.spill_load_bytes for one in made)
    }
