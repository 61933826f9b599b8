"""Attention in Triton: tunables, the kernel of one, and what it should cost on a GPU."""

from knowledge.loops.cost import HALVES, Machine, moved_mb, program_ms
from knowledge.loops.triton_tile import power_of_two
from knowledge.opgraph import OpGraph, Ref
from knowledge.pattern import Parameter, Proposal, Refusal, Situation, Step
from knowledge.patterns.attention.code import SIZES
from knowledge.patterns.attention.match import Anchor, find_anchors
from knowledge.patterns.attention.problem import (
    checks,
    described,
    flops,
    result_shape,
    scores,
    sizes,
)
from knowledge.patterns.attention.triton_source import Blocks, print_attention
from knowledge.program import Kernel, Program, Written

NAME = "attention"
FIRST: dict[str, Parameter] = {
    "precision": "tf32x3", "block_rows": 0, "block_keys": 0, "warps": 0, "stages": 0,
    "hidden": "skip",
}  # fmt: skip
ALLOWED: dict[str, tuple[Parameter, ...]] = {
    "precision": ("tf32x3", "bf16x3", "ieee"),
    "block_rows": (0, 16, 32, 64, 128),
    "block_keys": (0, 16, 32, 64, 128),
    "warps": (0, 4, 8),
    "stages": (0, 1, 2, 3, 4),
    "hidden": ("skip", "multiply"),
}
# As printed: a scaling, a maximum, a difference, an exponential, a sum, and a conversion.
SCORE_OPERATIONS = 6
# The widest heads whose queries, weights and results fit a multiprocessor's registers.
WIDEST = 256
# An order of preference among blocks that were never timed.
OTHER_BLOCKS = 0.98


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """All attentions in kernels of their own; then in other arithmetic and other blocks."""
    anchors, reasons = _anchors(program)
    if not anchors:
        told = "; ".join(dict.fromkeys(reasons)) or "there is none in the graph"
        return Refusal(pattern=NAME, reason=f"No attention can be taken over: {told}.")
    machine = Machine.of(situation)
    before, proposals = program_ms(program, machine), []
    for change, factor in _variants(anchors):
        step = Step(pattern=NAME, parameters={**FIRST, **change, "only": ""})
        made = apply(program, step)
        after = program_ms(made, machine)
        told = ", ".join(f"{name} {value}" for name, value in change.items()).replace("_", " ")
        proposals.append(
            Proposal(
                step=step,
                title=f"attention in one pass over the keys ({told or 'blocks by the sizes'})",
                speedup=before / after * factor,
                arithmetic=_arithmetic(program, made, machine, (before, after)),
            )
        )
    return proposals


def _variants(anchors: list[Anchor]) -> list[tuple[dict[str, Parameter], float]]:
    """Changed tunables worth trying, and what each is worth besides its arithmetic."""
    found: list[tuple[dict[str, Parameter], float]] = [({}, 1.0)]
    if any(anchor.form.dtype == "float32" for anchor in anchors):
        found.append(({"precision": "bf16x3"}, 1.0))
    changes: list[dict[str, Parameter]] = [
        {"block_rows": 128, "warps": 8}, {"block_rows": 64}, {"block_keys": 64},
        {"block_keys": 32}, {"stages": 3}, {"warps": 8},
    ]  # fmt: skip
    return [*found, *((change, OTHER_BLOCKS) for change in changes)]


def _arithmetic(
    program: Program, made: Program, machine: Machine, milliseconds: tuple[float, float]
) -> str:
    before, after = milliseconds
    kernels = made.kernels[len(program.kernels) :]
    kinds = dict.fromkeys(kernel.arithmetic for kernel in kernels)
    peaks = ", ".join(
        f"{machine.gflops(kind):.0f} GFLOP/s in {kind or 'float32'}" for kind in kinds
    )
    return (
        f"{sum(kernel.flops for kernel in kernels) / 1e9:.2f} GFLOP in products, at a peak of "
        f"{peaks}; {moved_mb(made):.1f} MB moved in place of {moved_mb(program):.1f}: "
        f"{after:.3f} ms. Before: {before:.3f} ms, so {before / after:.2f}x."
    )


def apply(program: Program, step: Step) -> Program:
    """The program with its attentions, or those named by `only`, in Triton kernels.

    Raises:
        ValueError: there is none that can be taken, or a tunable has an unknown value.
    """
    wished = _settings(step.parameters)
    anchors = [a for a in _anchors(program)[0] if not step.only or step.only & set(a.nodes)]
    if not anchors:
        raise ValueError("attention: there is none that it can take")
    kernels = tuple(make_kernel(program.graph, anchor, wished) for anchor in anchors)
    count = f"{len(kernels)} attentions" if len(kernels) != 1 else "attention"
    words = f"{count} in one pass over the keys"
    return program.changed(kernels=(*program.kernels, *kernels), steps=(*program.steps, words))


def _settings(parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    values = {name: parameters.get(name, first) for name, first in FIRST.items()}
    unknown = set(parameters) - {*FIRST, "only"}
    if unknown or any(value not in ALLOWED[name] for name, value in values.items()):
        raise ValueError(f"attention: unknown tunables {parameters}")
    return values


def _anchors(program: Program) -> tuple[list[Anchor], list[str]]:
    found, reasons = find_anchors(program)
    kept = [anchor for anchor in found if max(_widths(anchor)) <= WIDEST]
    wide = [anchor for anchor in found if anchor not in kept]
    reasons += [f"{anchor.nodes[-1]} has heads wider than {WIDEST}" for anchor in wide]
    return kept, reasons


def _widths(anchor: Anchor) -> tuple[int, int]:
    """The depth of queries and keys, and the width of values."""
    return anchor.size("depth"), anchor.size("width")


def choose(anchor: Anchor, wished: dict[str, Parameter]) -> Blocks:
    """The blocks for an attention at its traced sizes."""
    wish = {k: int(v) for k, v in wished.items() if k not in ("precision", "hidden")}
    depth, width = (max(16, power_of_two(size)) for size in _widths(anchor))
    is_float32 = anchor.form.dtype == "float32"
    widest = max(depth, width)
    # Queries in float32 are held in two parts, for all keys: registers bound the tile.
    most, keys = (64, 32 if widest <= 64 else 16) if is_float32 else (128, 64)
    if widest > 128:
        most, keys = (32, 16) if is_float32 else (64, 32)
    rows = min(most, max(16, power_of_two(anchor.size("query"))))
    rows, keys = wish["block_rows"] or rows, wish["block_keys"] or keys
    return Blocks(
        rows=rows, keys=keys, depth=depth, width=width,
        warps=wish["warps"] or (8 if rows * widest >= (64 * 64 if is_float32 else 64 * 128) else 4),
        stages=wish["stages"] or 2, precision=str(wished["precision"]), is_float32=is_float32,
        skips=wished["hidden"] == "skip",
    )  # fmt: skip


def make_kernel(graph: OpGraph, anchor: Anchor, wished: dict[str, Parameter]) -> Kernel:
    """The kernel of one attention; queries, keys, values and mask are read as they lie."""
    name, dtype = f"attention_{anchor.result.name}", anchor.form.dtype
    reads = tuple(laid.ref for laid in anchor.operands)
    written = Written(
        ref=Ref(ref=anchor.result.name), shape=result_shape(anchor), spec=anchor.result.spec
    )
    given, blocks = sizes(anchor), choose(anchor, wished)
    note = f"attention, {described(anchor.form)}"
    strides = [size.name for size in given[len(SIZES) :]]
    depth, width = _widths(anchor)
    precision = "" if wished["precision"] == "ieee" else str(wished["precision"])
    return Kernel(
        name=name, language="triton",
        source=print_attention(anchor.form, blocks, name, strides, note),
        signature="p" * (len(reads) + 1) + "i" * len(given), nodes=anchor.nodes, reads=reads,
        writes=(written,), strided=reads, sizes=given, checks=checks(graph, anchor), note=note,
        moved_bytes=sum(graph.spec_of(ref).nbytes for ref in reads) + written.spec.nbytes,
        programs=written.spec.numel // (width * anchor.size("query"))
        * -(-anchor.size("query") // blocks.rows),
        operations=SCORE_OPERATIONS * scores(anchor), flops=flops(anchor),
        efficiency=(depth + width) / (blocks.depth + blocks.width),
        arithmetic=precision if dtype == "float32" else HALVES[dtype],
    )  # fmt: skip
