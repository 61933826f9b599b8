"""Takes matrix products from the library: an own kernel with its epilogue, or oneDNN's routine."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

from knowledge.loops.cost import Machine, moved_mb, program_ms
from knowledge.pattern import Parameter, Proposal, Refusal, Situation, Step
from knowledge.patterns.matmul import triton
from knowledge.patterns.matmul.contraction import Contraction
from knowledge.patterns.matmul.kernel import is_blocked, make_kernel
from knowledge.patterns.matmul.match import find_product
from knowledge.patterns.matmul.onednn import to_onednn
from knowledge.patterns.matmul.products import (
    NAME,
    counted,
    find_products,
    gaining,
    refusal,
    replaced,
)
from knowledge.patterns.matmul.source import Blocking
from knowledge.program import Program

# On one thread, over what torch.mm reaches: 109 to 97 GFLOP/s at 1024.
# Nothing but a preference for the sizes that were fastest where they were measured.
OTHER_BLOCKS = 0.98
FIRST: dict[str, Parameter] = {
    "engine": "own", "block_rows": 384, "block_depth": 256, "block_columns": 512,
}  # fmt: skip
ALLOWED: dict[str, tuple[Parameter, ...]] = {
    "engine": ("own", "onednn"),
    "block_rows": (192, 384, 768),
    "block_depth": (128, 256, 384),
    "block_columns": (256, 512, 1024),
}


@dataclass(frozen=True)
class _Options:
    """A step's tunables."""

    engine: Literal["own", "onednn"]
    blocking: Blocking


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """Own kernels, then oneDNN's routine, then own kernels in blocks of other sizes."""
    if program.backend == "triton":
        return triton.propose(program, situation)
    found, reasons = find_products(program, find_product)
    if not found:
        return refusal(reasons)
    machine = Machine.of(situation)
    before = program_ms(program, machine)
    proposals = []
    only = gaining(program, found, partial(make_kernel, _options(FIRST).blocking), machine)
    # Blocks of another size do the same work: an engine's program is made once.
    made: dict[Parameter, Program] = {}
    for given, factor in _variants(program, found):
        parameters = {**given, "only": only} if only else given
        step = Step(pattern=NAME, parameters=parameters)
        if given["engine"] not in made:
            made[given["engine"]] = apply(program, step)
        changed = made[given["engine"]]
        after = program_ms(changed, machine)
        proposals.append(
            Proposal(
                step=step, title=_title(parameters, found), speedup=before / after * factor,
                arithmetic=_arithmetic(program, changed, situation, (before, after)),
            )
        )  # fmt: skip
    return proposals


def _variants(
    program: Program, found: list[Contraction]
) -> list[tuple[dict[str, Parameter], float]]:
    """Tunables worth trying, and what each is expected to be worth against the first."""
    variants: list[tuple[dict[str, Parameter], float]] = [(FIRST, 1.0)]
    if not any(is_blocked(one) for one in found):
        return variants
    if to_onednn(program, tuple(one.anchor for one in found))[1]:
        variants.append(({**FIRST, "engine": "onednn"}, 1.0))
    for name in ("block_rows", "block_depth", "block_columns"):
        others = [value for value in ALLOWED[name] if value != FIRST[name]]
        variants += [({**FIRST, name: value}, OTHER_BLOCKS) for value in others]
    return variants


def _title(parameters: dict[str, Parameter], found: list[Contraction]) -> str:
    if parameters["engine"] == "onednn":
        return f"{counted(len(found))} by oneDNN"
    sizes = " x ".join(str(parameters[name]) for name in list(FIRST)[1:])
    return f"{counted(len(found))} by own kernels (blocks {sizes})"


def _arithmetic(
    program: Program, changed: Program, situation: Situation, milliseconds: tuple[float, float]
) -> str:
    before, after = milliseconds
    kernels = changed.kernels[len(program.kernels) :]
    flops = sum(kernel.flops for kernel in kernels)
    if not kernels:
        told = "oneDNN's routine at the peak that torch.mm reaches"
    else:
        fused = sum(len(kernel.nodes) for kernel in kernels)
        told = (
            f"{fused} calls become {len(kernels)} kernel{'s' if len(kernels) != 1 else ''} that do "
            f"{flops / 1e9:.3f} GFLOP at {min(kernel.efficiency for kernel in kernels):.2f} of the "
            "peak that torch.mm reaches"
        )
    return (
        f"{told[0].upper()}{told[1:]}, and {moved_mb(program):.1f} MB through memory become "
        f"{moved_mb(changed):.1f}; at {situation.peak_gflops:.0f} GFLOP/s and "
        f"{situation.bandwidth_gbps:.1f} GB/s {after:.3f} ms against {before:.3f} ms: "
        f"{before / after:.2f}x."
    )


def apply(program: Program, step: Step) -> Program:
    """The program with its matrix products in own kernels, or given to oneDNN.

    Raises:
        ValueError: no product fits, or a tunable has an unknown value.
    """
    if program.backend == "triton":
        return triton.apply(program, step)
    options = _options(step.parameters)
    found, reasons = find_products(program, find_product, step.only)
    if not found:
        raise ValueError(f"matmul: {'; '.join(reasons) or 'there is no matrix product'}")
    if options.engine == "onednn":
        changed, done = to_onednn(program, tuple(one.anchor for one in found))
        if not done:
            raise ValueError("matmul: oneDNN has no call for these products")
        words = f"{counted(len(done))} by oneDNN"
    else:
        changed = replaced(program, found, find_product, partial(make_kernel, options.blocking))
        words = f"{counted(len(changed.kernels) - len(program.kernels))} by own kernels"
    return changed.changed(steps=(*changed.steps, words))


def _options(parameters: dict[str, Parameter]) -> _Options:
    values = {name: parameters.get(name, first) for name, first in FIRST.items()}
    unknown = set(parameters) - {*FIRST, "only"}
    if unknown or any(value not in ALLOWED[name] for name, value in values.items()):
        raise ValueError(f"matmul: unknown tunables {parameters}")
    blocking = Blocking(
        int(values["block_rows"]), int(values["block_depth"]), int(values["block_columns"])
    )
    return _Options(cast(Literal["own", "onednn"], values["engine"]), blocking)
