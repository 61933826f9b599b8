"""Computes transposed convolutions by output phase, with what follows them done in cache."""

from dataclasses import dataclass
from math import ceil, prod

from knowledge.loops.cost import Machine, program_ms
from knowledge.loops.epilogue import Epilogue, find_epilogue
from knowledge.opgraph import Ref
from knowledge.pattern import Parameter, Proposal, Refusal, Situation, Step
from knowledge.patterns.convolution.fixed_norms import with_norms_apart
from knowledge.patterns.convolution.triton import DEFAULTS, settings
from knowledge.patterns.convolution.triton import variants as triton_variants
from knowledge.patterns.convolution.triton_tiling import Wish
from knowledge.patterns.transposed_convolution import triton
from knowledge.patterns.transposed_convolution.match import Transposed, find
from knowledge.patterns.transposed_convolution.phases import Layout, choose_layout
from knowledge.patterns.transposed_convolution.source import print_source
from knowledge.program import Check, Kernel, Program, Size, Written, variable

NAME = "transposed_convolution"
PANELS = (4, 2, 8)
# An order of preference among variants that differ by little.
PANELS_PENALTY, MERGE_PENALTY = 0.97, 0.95


@dataclass(frozen=True)
class Tunables:
    """How many panels share a tile of weights in a row, and whether phases share tiles."""

    panels: int = PANELS[0]
    merge: bool = True


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """One proposal for each setting of the tunables; all take every transposed convolution."""
    found, reasons = _find(program)
    if not found:
        told = "; ".join(dict.fromkeys(reasons.values())) or "the op has none"
        return Refusal(pattern=NAME, reason=f"No transposed convolution can be taken: {told}.")
    machine = Machine.of(situation)
    flops = sum(call.flops for call in found)
    before = program_ms(program, machine)
    applied = _applied(program, found, Wish() if program.backend == "triton" else Tunables())
    after = program_ms(applied, machine)
    new = applied.kernels[len(program.kernels) :]
    arithmetic = (
        f"{flops / 1e9:.2f} GFLOP at {_shares(new)} of the {situation.peak_gflops:.0f} GFLOP/s "
        f"of a matrix product: {after:.2f} ms in all against {before:.2f} ms, "
        f"{before / after:.2f}x."
    )
    title = f"transposed convolution by output phase ({len(found)} of them)"
    return [
        Proposal(
            step=Step(pattern=NAME, parameters=parameters),
            title=f"{title}{words}",
            speedup=before / after * factor,
            arithmetic=arithmetic,
        )
        for parameters, words, factor in _variants(program, found)
    ]


def efficiency(call: Transposed) -> float:
    """The share of a matrix product's speed that this kernel reaches; fitted, see notes.md.

    A tile's sums are written and read back once for `depth` steps, and a packed window serves
    `uses` rows of tiles.
    """
    depth, channels = call.in_channels / call.groups, call.out_channels / call.groups
    window = prod(axis.window for axis in call.axes)
    reached = prod(ceil(axis.window / axis.stride) for axis in call.axes)
    depth *= window / prod(axis.stride for axis in call.axes)
    uses = channels * window / reached
    return depth / (depth + 20) * uses / (uses + 6)


def _shares(kernels: tuple[Kernel, ...]) -> str:
    return ", ".join(f"{kernel.efficiency:.0%}" for kernel in kernels)


def _find(
    program: Program, only: frozenset[str] = frozenset()
) -> tuple[list[Transposed], dict[str, str]]:
    dtypes = triton.DTYPES if program.backend == "triton" else ("float32",)
    return find(program, only, dtypes)


def _variants(
    program: Program, found: list[Transposed]
) -> list[tuple[dict[str, Parameter], str, float]]:
    if program.backend == "triton":
        tilings = [triton.tiling_for(program, call, Wish()) for call in found]
        cut = [tiling for tiling in tilings if not isinstance(tiling, str)]
        every = [({}, "", 1.0), *triton_variants(cut)]
        return [({**DEFAULTS, **changed}, words, factor) for changed, words, factor in every]
    first: dict[str, Parameter] = {"panels": PANELS[0], "merge": True}
    variants = [(first, "", 1.0)]
    variants += [
        ({**first, "panels": panels}, f", {panels} panels in a row", PANELS_PENALTY)
        for panels in PANELS[1:]
    ]
    if any(_layout(call, True) != _layout(call, False) for call in found):
        variants.append(({**first, "merge": False}, ", a tile for each phase", MERGE_PENALTY))
    return variants


def apply(program: Program, step: Step) -> Program:
    """The program with a kernel for each transposed convolution and what follows it.

    Raises:
        ValueError: there is none that can be taken, or a tunable has an unknown value.
    """
    tunables = _tunables(program, step)
    found, reasons = _find(program, step.only)
    if not found:
        raise ValueError(f"{NAME}: nothing to take. {'; '.join(reasons.values())}")
    return _applied(program, found, tunables)


def _tunables(program: Program, step: Step) -> Tunables | Wish:
    if program.backend == "triton":
        return settings({name: v for name, v in step.parameters.items() if name != "only"})
    unknown = set(step.parameters) - {"panels", "merge", "only"}
    panels, merge = step.parameters.get("panels", PANELS[0]), step.parameters.get("merge", True)
    if unknown or panels not in PANELS or not isinstance(merge, bool):
        raise ValueError(f"{NAME}: unknown tunables {step.parameters}")
    return Tunables(int(panels), merge)


def _applied(program: Program, found: list[Transposed], tunables: Tunables | Wish) -> Program:
    names = [call.node.name for call in found]
    applied = with_norms_apart(program, lambda given: _taken(given, names, tunables), names)
    count = f"{len(found)} transposed convolution{'s' if len(found) != 1 else ''}"
    return applied.changed(steps=(*applied.steps, f"{count} by output phase"))


def _taken(program: Program, names: list[str], tunables: Tunables | Wish) -> Program:
    """The program with a kernel for each transposed convolution of these names."""
    for call in _find(program, frozenset(names))[0]:
        if isinstance(tunables, Wish):
            kernel = triton.make_kernel(program, call, tunables)
        else:
            kernel = _kernel(program, call, tunables)
        program = program.changed(kernels=(*program.kernels, kernel))
    return program


def _layout(call: Transposed, merge: bool) -> Layout:
    depth, channels = call.in_channels // call.groups, call.out_channels // call.groups
    return choose_layout(call.axes, depth, channels, merge)


def _epilogue(program: Program, call: Transposed) -> tuple[Epilogue, int] | None:
    """What follows, plane by plane if possible, image by image if that takes more calls along."""
    shape = tuple(call.output_sizes())
    best: tuple[Epilogue, int] | None = None
    for dims in (2, 1):
        found = find_epilogue(program, call.node.name, dims, shape)
        if found is not None and (best is None or len(found.nodes) > len(best[0].nodes)):
            best = (found, dims)
    return best


def _kernel(program: Program, call: Transposed, tunables: Tunables) -> Kernel:
    graph, made = program.graph, Ref(ref=call.node.name)
    fused = _epilogue(program, call)
    epilogue = fused[0] if fused else None
    name = f"{call.node.name}_by_phase"
    own = [call.x, call.weight, *([call.bias] if call.bias else [])]
    sizes = call.output_sizes()
    result = Written(ref=made, shape=f"({', '.join(sizes)})", spec=graph.spec_of(made))
    writes = (result,) if epilogue is None or epilogue.keeps_anchor else ()
    numbers = [sizes[0], f"{variable(call.x)}.shape[1]", sizes[1], *call.input_sizes()]
    names = ("batch", "in_channels", "channels", "outer", "middle", "inner")
    given = tuple(Size(name=n, expression=e) for n, e in zip(names, numbers, strict=True))
    reads = (*own, *(epilogue.reads if epilogue else ()))
    every = (*writes, *(epilogue.writes if epilogue else ()))
    given = (*given, *(epilogue.sizes if epilogue else ()))
    moved = sum(graph.spec_of(ref).nbytes for ref in dict.fromkeys(reads))
    return Kernel(
        name=name,
        source=print_source(name, call, _layout(call, tunables.merge), tunables.panels, fused),
        signature="p" * (len(reads) + len(every)) + "i" * len(given),
        reads=reads,
        writes=every,
        sizes=given,
        nodes=(call.node.name, *(epilogue.nodes if epilogue else ())),
        checks=(*_checks(program, call), *(epilogue.checks if epilogue else ())),
        note=_note(call, epilogue),
        moved_bytes=moved + sum(one.spec.nbytes for one in every),
        operations=epilogue.operations if epilogue else 0,
        flops=call.flops,
        efficiency=efficiency(call),
    )


def _checks(program: Program, call: Transposed) -> tuple[Check, ...]:
    """What must hold where the weight is an input too, and so may come in another shape."""
    if program.graph.by_name[call.weight.ref].kind in ("parameter", "buffer", "constant"):
        return ()
    weight, window = variable(call.weight), program.graph.spec_of(call.weight).shape[2:]
    bias = variable(call.bias) if call.bias else ""
    channels = f"{weight}.shape[1] * {call.groups}"
    return (
        Check(
            left=f"{weight}.shape[2:]",
            right=str(window),
            sentence=f"the kernel was made for a window of {' x '.join(map(str, window))}",
        ),
        Check(
            left=f"{variable(call.x)}.shape[1]",
            right=f"{weight}.shape[0]",
            sentence="the image's channels are not those of the weight",
        ),
        *(
            [Check(left=f"{bias}.shape[0]", right=channels, sentence="the bias has another size")]
            if bias
            else []
        ),
    )


def _note(call: Transposed, epilogue: Epilogue | None) -> str:
    window = "x".join(str(axis.window) for axis in call.spatial())
    stride = "x".join(str(axis.stride) for axis in call.spatial())
    after = f", then {len(epilogue.nodes)} calls more" if epilogue else ""
    return f"Transposed convolution, window {window}, stride {stride}, by output phase{after}."
