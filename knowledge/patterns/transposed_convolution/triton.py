"""Transposed convolutions as Triton: a program has results of one phase, which share taps."""

from math import prod

from knowledge.patterns.convolution.triton import told
from knowledge.patterns.convolution.triton_forms import Tiling, Windows
from knowledge.patterns.convolution.triton_kernel import Anchor, triton_kernel
from knowledge.patterns.convolution.triton_tiling import Wish, choose, share
from knowledge.patterns.transposed_convolution.match import Transposed
from knowledge.program import Check, Kernel, Program, variable

DTYPES = ("float32", "float16", "bfloat16")


def windows_of(call: Transposed) -> Windows:
    """What a transposed convolution multiplies with what."""
    axes = call.spatial()
    return Windows(
        kernel=tuple(axis.window for axis in axes),
        stride=tuple(axis.stride for axis in axes),
        before=tuple(axis.padding for axis in axes),
        after=tuple(axis.padding for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        groups=call.groups,
        channels=call.in_channels // call.groups,
        filters=call.out_channels // call.groups,
        transposed=True,
    )


def tiling_for(program: Program, call: Transposed, wish: Wish) -> Tiling | str:
    """How the work is cut, or why it can't be."""
    dtype = program.graph.spec_of(call.x).dtype
    return choose(windows_of(call), call.batch, _places(call), dtype, wish)


def _places(call: Transposed) -> int:
    """Results of one phase in an image and channel."""
    return prod(-(-axis.out // axis.stride) for axis in call.spatial())


def make_kernel(program: Program, call: Transposed, wish: Wish) -> Kernel:
    """The kernel of a transposed convolution and the pointwise work that follows it.

    Raises:
        ValueError: it has no such form.
    """
    tiling = tiling_for(program, call, wish)
    if isinstance(tiling, str):
        raise ValueError(f"transposed_convolution: {tiling}")
    windows, x = windows_of(call), variable(call.x)
    traced = call.node.spec.shape[1]
    anchor = Anchor(
        name=call.node.name, image=call.x, weight=call.weight, bias=call.bias, windows=windows,
        shape=(call.output_sizes()[0], str(traced), *call.output_sizes()[2:]),
        pixels=tuple(f"{x}.shape[{axis + 2}]" for axis in range(call.rank)),
        checks=_checks(program, call), note=told(windows, tiling), flops=call.flops,
        share=share(windows, tiling, call.batch, _places(call)),
    )  # fmt: skip
    return triton_kernel(program, anchor, f"{call.node.name}_by_phase", tiling, fused=True)


def _checks(program: Program, call: Transposed) -> tuple[Check, ...]:
    """Channels and window are compiled in."""
    shape = tuple(program.graph.spec_of(call.weight).shape)
    channels = call.in_channels
    return (
        Check(
            left=f"({variable(call.x)}.shape[1], *{variable(call.weight)}.shape)",
            right=str((channels, *shape)),
            sentence=f"this kernel was made for {channels} channels and a weight of shape {shape}",
        ),
    )
