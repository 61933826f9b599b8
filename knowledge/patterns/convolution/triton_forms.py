"""What a convolution in Triton multiplies with what, and how the work is cut into programs."""

from dataclasses import dataclass
from math import prod
from typing import Literal

Form = Literal["channels", "window", "direct"]


@dataclass(frozen=True)
class Windows:
    """What is multiplied with what; tuples have an entry for each spatial dimension.

    `channels` and `filters` are those of one of the `groups`. Of a transposed convolution `before`
    is what its padding cuts off.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    channels: int
    filters: int
    transposed: bool = False

    @property
    def letters(self) -> str:
        """A letter for each dimension."""
        return "dhw"[3 - len(self.kernel) :]

    @property
    def taps(self) -> int:
        """Elements of the window in one channel."""
        return prod(self.kernel)

    @property
    def phases(self) -> int:
        """Kinds of results that take different taps."""
        return prod(self.stride) if self.transposed else 1

    @property
    def plain(self) -> bool:
        """Whether a result's window is the one pixel at its own place."""
        padded = any((*self.before, *self.after))
        return not self.transposed and self.taps == 1 and set(self.stride) == {1} and not padded


@dataclass(frozen=True)
class Tiling:
    """How the work is cut: `filters` by `places` results a program, `depth` products a step.

    `across` numbers places through all images, so that small ones share a tile.
    """

    form: Form
    filters: int
    places: int
    depth: int
    warps: int
    stages: int
    precision: str = ""
    across: bool = False

    @property
    def filters_first(self) -> bool:
        """Whether filters are the rows of a tile: wgmma takes 64 rows, which places can fill."""
        return self.form == "direct" or self.filters >= 64
