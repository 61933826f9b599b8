"""Of the peak of a matrix product, what this pattern's kernels reach.

The shares are set by hand from the times in notes.md. Those of dense windows are held against a
torch.mm of 104 GFLOP/s a core on a Zen 4 with AVX-512, a figure from a busy machine; the depthwise
ones against 215 GFLOP/s a core of a quiet one of the next generation.
"""

from math import prod

from knowledge.patterns.convolution.window import Window

# Of the peak, with a long window and no position lost.
LONG_WINDOW, DEPTHWISE = 0.95, 0.7
# A tile's start and end, and the copy of its rows to their place, in steps of the window.
TILE_OVERHEAD, DEPTHWISE_OVERHEAD = 24, 8
# Positions of a register tile, and of one vector, with 512 bits.
COLUMNS, LANES = 32, 16


def own_share(window: Window, result: tuple[int, ...]) -> float:
    """Of the peak, for this pattern's kernel; `result` is the shape that it makes."""
    height, width = prod(result[2:-1]), result[-1]
    if window.depthwise:
        filled = width / (-(-width // LANES) * LANES)
        return DEPTHWISE * filled * window.taps / (window.taps + DEPTHWISE_OVERHEAD)
    depth = window.channels * window.taps
    behind = 0 if height == 1 else max(window.before[-1], window.after[-1])
    computed = -(-height * (width + behind) // COLUMNS) * COLUMNS
    return LONG_WINDOW * depth / (depth + TILE_OVERHEAD) * height * width / computed
