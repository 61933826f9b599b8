"""The tunables of convolutions printed as Triton, and which of their settings are worth trying."""

from math import prod

from knowledge.pattern import Parameter
from knowledge.patterns.convolution import triton_tiling as tiling_of
from knowledge.patterns.convolution.triton_forms import Tiling, Windows
from knowledge.patterns.convolution.triton_kernel import Anchor, triton_kernel
from knowledge.patterns.convolution.triton_tiling import Wish, choose, share
from knowledge.patterns.convolution.window import Call
from knowledge.program import Check, Kernel, Program, variable

DTYPES = ("float32", "float16", "bfloat16")
DEFAULTS: dict[str, Parameter] = {
    "precision": "tf32x3", "form": "", "filters": 0, "places": 0, "depth": 0, "warps": 0,
    "stages": 0,
}  # fmt: skip
_VALUES: dict[str, tuple[Parameter, ...]] = {
    "precision": tiling_of.PRECISIONS, "form": tiling_of.FORMS, "filters": tiling_of.FILTERS,
    "places": tiling_of.PLACES, "depth": tiling_of.DEPTHS, "warps": tiling_of.WARPS,
    "stages": tiling_of.STAGES,
}  # fmt: skip
# An order of preference, not a measurement.
VARIANT_PENALTY, MEND_PENALTY = 0.98, 0.5


def settings(parameters: dict[str, Parameter]) -> Wish:
    """The tunables of a step.

    Raises:
        ValueError: one is unknown, or has a value that it can't have.
    """
    given = {**DEFAULTS, **parameters}
    if set(given) > set(DEFAULTS) or any(given[name] not in _VALUES[name] for name in DEFAULTS):
        raise ValueError(f"unknown tunables {parameters}")
    numbers = {name: int(given[name]) for name in DEFAULTS if isinstance(DEFAULTS[name], int)}
    return Wish(precision=str(given["precision"]), form=str(given["form"]), **numbers)


def windows_of(call: Call) -> Windows:
    """What a convolution multiplies with what."""
    w = call.window
    return Windows(
        w.kernel, w.stride, w.before, w.after, w.dilation, w.groups, w.channels, w.filters
    )


def tiling_for(program: Program, call: Call, wish: Wish) -> Tiling | str:
    """How the work of a convolution is cut, or why it can't be."""
    shape = program.graph.by_name[call.name].spec.shape
    dtype = program.graph.spec_of(call.image).dtype
    return choose(windows_of(call), shape[0], prod(shape[2:]), dtype, wish)


def make_kernel(
    program: Program, call: Call, name: str, fused: bool, checks: tuple[Check, ...], wish: Wish
) -> Kernel:
    """The kernel of a convolution.

    Raises:
        ValueError: it has no such form.
    """
    tiling = tiling_for(program, call, wish)
    if isinstance(tiling, str):
        raise ValueError(f"convolution: {tiling}")
    spec, windows = program.graph.by_name[call.name].spec, windows_of(call)
    image = variable(call.image)
    anchor = Anchor(
        name=call.name, image=call.image, weight=call.weight, bias=call.bias, windows=windows,
        shape=call.result_shape(), checks=checks, note=told(windows, tiling),
        pixels=tuple(f"{image}.shape[{axis + 2}]" for axis in range(len(windows.kernel))),
        flops=2 * spec.numel * windows.taps * windows.channels,
        share=share(windows, tiling, spec.shape[0], prod(spec.shape[2:])),
    )  # fmt: skip
    return triton_kernel(program, anchor, name, tiling, fused)


def told(windows: Windows, tiling: Tiling) -> str:
    """What a kernel does, in a line."""
    size = "x".join(map(str, windows.kernel))
    kind = "transposed convolution" if windows.transposed else "convolution"
    groups = f" in {windows.groups} groups" if windows.groups > 1 else ""
    how = {
        "channels": "tap by tap on tensor cores",
        "window": "whole windows on tensor cores",
        "direct": "product by product",
    }[tiling.form]
    return f"A {kind} with a window of {size}{groups}, {how}, and what follows it"


def variants(tilings: list[Tiling]) -> list[tuple[dict[str, Parameter], str, float]]:
    """Tunables worth trying, with their names and their expected factor over the first."""
    found: list[tuple[dict[str, Parameter], str, float]] = []
    dense = [tiling for tiling in tilings if tiling.form != "direct"]
    if any(tiling.precision for tiling in dense):
        found.append(({"precision": "bf16x3"}, ", in three bfloat16 products", 1.1))
    # Four warps of the largest tile would have 128 registers of sums in each thread.
    largest = any(tiling.filters * tiling.places >= tiling_of.MOST_TILE for tiling in dense)
    for warps in (8,) if largest else (4, 8):
        if dense and {tiling.warps for tiling in dense} != {warps}:
            found.append(({"warps": warps}, f", {warps} warps", VARIANT_PENALTY))
    for places in (64, 128, 256):
        if {tiling.places for tiling in tilings} != {places}:
            found.append(({"places": places}, f", tiles of {places} places", VARIANT_PENALTY))
    for stages in (2, 4):
        if dense:
            found.append(({"stages": stages}, f", {stages} steps under way", VARIANT_PENALTY))
    if dense:
        found.append(({"form": "direct"}, ", without tensor cores", MEND_PENALTY))
    if any(tiling.precision for tiling in dense):
        found.append(({"precision": "ieee"}, ", in plain float32", MEND_PENALTY))
    return found
