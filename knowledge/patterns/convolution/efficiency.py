"""Of the peak of a matrix product, what this pattern's kernels reach.

The shares are set by hand from the times in notes.md, against a torch.mm of 104 GFLOP/s a core on a
Zen 4 with AVX-512. That figure and the depthwise shares come from a busy machine, and are to be
measured again.
"""

from math import prod

from knowledge.patterns.convolution.window import Window

# Of the peak, with a long window and no position lost.
LONG_WINDOW, DEPTHWISE = 0.95, 0.4
# A tile's start and end, and the copy of its rows to their place, in steps of the window.
TILE_OVERHEAD = 24
# Positions of a register tile, with 512-bit vectors.
COLUMNS = 32


def own_share(window: Window, result: tuple[int, ...]) -> float:
    """Of the peak, for this pattern's kernel; `result` is the shape that it makes."""
    if window.depthwise:
        return DEPTHWISE
    depth = window.channels * window.taps
    height, width = prod(result[2:-1]), result[-1]
    behind = 0 if height == 1 else max(window.before[-1], window.after[-1])
    computed = -(-height * (width + behind) // COLUMNS) * COLUMNS
    return LONG_WINDOW * depth / (depth + TILE_OVERHEAD) * height * width / computed
