"""Which taps of the window reach an output position, by its phase; and how phases share tiles.

Along one axis output o takes x[i] w[k] for all i and k with  o + padding = i stride + k dilation.
With o = stride t + base + e, where 0 <= e < stride is the *phase*, that is i = t + shift for the
taps k of which  shift = (base + e + padding - k dilation) / stride  is whole. So each phase is an
ordinary convolution of stride 1 over few shifts. `base` in (-stride, 0] aligns the phases with each
other: it decides how many steps t there are, and which phases have the same shifts.
"""

from dataclasses import dataclass
from itertools import product
from math import ceil

# What the layout is chosen for: rows of the register tile with AVX-512. Lower tiles take what is
# left over, in thirds.
ROWS, THIRD = 12, 4
# Reading and writing back the tile's sums costs as much as this many steps of its depth.
STEPS_PER_CALL = 3
MOST_CHANNELS = 24


@dataclass(frozen=True)
class Axis:
    """One spatial dimension of the call; `extra` is output_padding, `size` the traced input's."""

    window: int
    stride: int
    padding: int
    dilation: int
    extra: int
    size: int

    @property
    def out(self) -> int:
        """The result's size at the traced size."""
        reach = self.dilation * (self.window - 1)
        return (self.size - 1) * self.stride - 2 * self.padding + reach + self.extra + 1

    def bases(self) -> list[int]:
        """The alignments worth trying: with the output's edge, and with the window's."""
        return sorted({0, -(self.padding % self.stride)}, reverse=True)

    def steps(self, base: int) -> int:
        """How many positions each phase has."""
        return -(-(self.out - base) // self.stride)

    def taps(self, base: int) -> list[dict[int, int]]:
        """For each phase the tap of every shift."""
        found: list[dict[int, int]] = [{} for _ in range(self.stride)]
        for e, k in product(range(self.stride), range(self.window)):
            offset = base + e + self.padding - k * self.dilation
            if offset % self.stride == 0:
                found[e][offset // self.stride] = k
        return found


@dataclass(frozen=True)
class Kind:
    """Phases that take the same shifts, so that their rows may share a tile.

    `shifts` index the layout's; `taps` holds for each phase the window's tap at every shift.
    """

    phases: tuple[int, ...]
    shifts: tuple[int, ...]
    taps: tuple[tuple[int, ...], ...]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Neighbouring shifts: the first one, and how many."""
        found: list[tuple[int, int]] = []
        for shift in self.shifts:
            if found and sum(found[-1]) == shift:
                found[-1] = (found[-1][0], found[-1][1] + 1)
            else:
                found.append((shift, 1))
        return found


@dataclass(frozen=True)
class Layout:
    """A transposed convolution as products over shifted inputs.

    `shifts` are offsets (outer, middle, inner) into an image padded so that `lowest` becomes 0, in
    ascending order; `box` is one more than the largest offset of each axis. `channels` is how many
    output channels are computed together.
    """

    base: tuple[int, ...]
    lowest: tuple[int, ...]
    box: tuple[int, ...]
    shifts: tuple[tuple[int, ...], ...]
    kinds: tuple[Kind, ...]
    channels: int


def choose_layout(
    axes: tuple[Axis, Axis, Axis], depth: int, out_channels: int, merge: bool
) -> Layout:
    """The layout that keeps the register tile busy for the least time.

    Args:
        axes: the spatial dimensions.
        depth: input channels of a group.
        out_channels: output channels of a group.
        merge: let phases with equal shifts share tiles.
    """
    candidates = []
    for base in product(*(axis.bases() for axis in axes)):
        layout = _layout(axes, base, merge)
        channels, cost = _channels(layout.kinds, depth, out_channels)
        for axis, one in zip(axes, base, strict=True):
            cost *= axis.steps(one)
        candidates.append((cost, Layout(**{**layout.__dict__, "channels": channels})))
    return min(candidates, key=lambda pair: pair[0])[1]


def _layout(axes: tuple[Axis, ...], base: tuple[int, ...], merge: bool) -> Layout:
    taps = [axis.taps(one) for axis, one in zip(axes, base, strict=True)]
    every = [sorted({shift for phase in axis for shift in phase}) for axis in taps]
    lowest = tuple(shifts[0] for shifts in every)
    box = tuple(shifts[-1] - shifts[0] + 1 for shifts in every)
    shifts = tuple(product(*every))
    number = {shift: position for position, shift in enumerate(shifts)}
    sharing: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
    for phase, per_axis in enumerate(product(*taps)):
        taken = list(product(*(sorted(one) for one in per_axis)))
        reached = tuple(_tap(axes, per_axis, shift) for shift in taken)
        key = tuple(number[shift] for shift in taken)
        sharing.setdefault(key if merge else (*key, -1, phase), []).append((phase, reached))
    kinds = tuple(
        Kind(
            phases=tuple(phase for phase, _ in members),
            shifts=key if merge else key[:-2],
            taps=tuple(reached for _, reached in members),
        )
        for key, members in sharing.items()
    )
    moved = tuple(tuple(s - low for s, low in zip(shift, lowest, strict=True)) for shift in shifts)
    return Layout(base, lowest, box, moved, kinds, ROWS)


def _tap(axes: tuple[Axis, ...], taps: tuple[dict[int, int], ...], shift: tuple[int, ...]) -> int:
    """The tap's index in the window, row-major."""
    index = 0
    for axis, of, one in zip(axes, taps, shift, strict=True):
        index = index * axis.window + of[one]
    return index


def _channels(kinds: tuple[Kind, ...], depth: int, out_channels: int) -> tuple[int, float]:
    """How many channels to compute together, and what a position then costs in steps of depth."""

    def cost(channels: int) -> float:
        whole, rest = divmod(out_channels, channels)
        return whole * _tiles(kinds, depth, channels) + _tiles(kinds, depth, rest)

    best = min(range(1, MOST_CHANNELS + 1), key=lambda n: (cost(n), abs(n - ROWS)))
    return best, cost(best)


def _tiles(kinds: tuple[Kind, ...], depth: int, channels: int) -> float:
    return sum(
        ceil(channels * len(kind.phases) / THIRD)
        * THIRD
        * (len(kind.shifts) * depth + STEPS_PER_CALL * len(kind.runs))
        for kind in kinds
    )
