"""Which form a convolution's Triton kernel takes, and how large its tiles are; nothing is measured.

The choices follow from the sizes, and from what compiles for sm_80, sm_90 and sm_100 without
spills: see notes.md for the table.
"""

from dataclasses import dataclass
from math import prod

from knowledge.loops.triton_tile import power_of_two
from knowledge.patterns.convolution.triton_forms import Form, Tiling, Windows

PRECISIONS = ("tf32x3", "bf16x3", "ieee")
FORMS = ("", "channels", "window", "direct")
FILTERS = (0, 16, 32, 64, 128)
PLACES = (0, 32, 64, 128, 256, 512, 1024)
DEPTHS = (0, 16, 32, 64)
WARPS = (0, 2, 4, 8)
STAGES = (0, 1, 2, 3, 4)
# The least that a product on tensor cores takes along each side.
LEAST = 16
# Programs that a large device runs at once; fewer leave a part of it idle.
PROGRAMS = 128
# What a tile of a small image may waste before places are numbered through all images.
WASTE = 1.15
DIRECT_TILE = 1024
# The largest tile of sums: 64 registers a thread of 8 warps.
MOST_TILE = 128 * 128
# Tensor cores do so many more products a second than others: of float32 in three parts, of halves.
TENSOR_GAIN = {"float32": 2.5, "float16": 8.0, "bfloat16": 8.0}


@dataclass(frozen=True)
class Wish:
    """Tunables of a tile; 0 and "" leave the choice to the sizes."""

    precision: str = PRECISIONS[0]
    form: str = ""
    filters: int = 0
    places: int = 0
    depth: int = 0
    warps: int = 0
    stages: int = 0


def choose(windows: Windows, images: int, places: int, dtype: str, wish: Wish) -> Tiling | str:
    """The tiling for a convolution with so many places an image and phase, or why there is none."""
    form = _form(windows, dtype, wish.form)
    if form is None:
        return "few channels of a transposed convolution have no tile of products"
    if form == "direct":
        return _direct(windows, images, places, wish)
    filters = wish.filters or _filters(windows.filters)
    wanted = min(wish.places or 128, MOST_TILE // filters)
    while wanted > 64 and not wish.places:
        if _programs(windows, images * places, filters, wanted) >= PROGRAMS:
            break
        wanted //= 2
    depth = wish.depth or _depth(windows, form, _most_depth(dtype, wish, filters * wanted))
    warps = wish.warps or (8 if filters * wanted >= 128 * 128 else 4)
    precision = wish.precision if dtype == "float32" else ""
    return Tiling(
        form, filters, wanted, depth, warps, wish.stages or 3, precision, _across(places, wanted)
    )


def padded(windows: Windows, form: Form) -> float:
    """By how much tiles of products are larger than what is in them."""
    filters = -(-windows.filters // LEAST) * LEAST
    whole = windows.channels if form == "channels" else windows.channels * windows.taps
    return filters * -(-whole // LEAST) * LEAST / (windows.filters * whole)


def _form(windows: Windows, dtype: str, wished: str) -> Form | None:
    if wished == "window" and windows.transposed:
        return None
    forms: dict[str, Form] = {"channels": "channels", "window": "window", "direct": "direct"}
    if wished:
        return forms[wished]
    best: Form = "channels"
    few = windows.channels % LEAST and windows.channels < 4 * LEAST
    if few and windows.taps > 1 and not windows.transposed:
        best = "window"
    depth = windows.channels * windows.taps / windows.phases
    return "direct" if depth <= LEAST or padded(windows, best) > TENSOR_GAIN[dtype] else best


def _direct(windows: Windows, images: int, places: int, wish: Wish) -> Tiling:
    filters = min(LEAST, power_of_two(windows.filters))
    filters = min(wish.filters, filters) if wish.filters else filters
    wanted = wish.places or max(32, DIRECT_TILE // filters)
    if not wish.places:
        wanted = min(wanted, max(32, power_of_two(images * places)))
    return Tiling("direct", filters, wanted, 1, wish.warps or 4, 1, "", _across(places, wanted))


def _filters(count: int) -> int:
    """The tile with the least waste, a larger one where they waste alike: it reads less."""

    def cost(tile: int) -> float:
        return -(-count // tile) * tile * (1 + LEAST / tile)

    return min((128, 64, 32, 16), key=cost)


def _most_depth(dtype: str, wish: Wish, tile: int) -> int:
    """The longest step that spills nothing: of three TF32 products the parts are in registers."""
    if dtype != "float32":
        return 64
    return 16 if wish.precision == "tf32x3" and tile > 64 * 64 else 32


def _depth(windows: Windows, form: Form, most: int) -> int:
    whole = windows.channels if form == "channels" else windows.channels * windows.taps
    fitting = [depth for depth in (64, 32, 16) if depth <= most and depth <= max(whole, LEAST)]
    # A step that the channels fill beats a longer one that they don't.
    return min(fitting, key=lambda depth: (-(-whole // depth) * depth, -depth))


def _programs(windows: Windows, places: int, filters: int, tile: int) -> int:
    each = -(-places // tile) * -(-windows.filters // filters)
    return each * windows.groups * windows.phases


def _across(places: int, tile: int) -> bool:
    return -(-places // tile) * tile > WASTE * places


# Of the peak of a float32 product, what the forms should reach: an expectation to order proposals
# by, to be measured. Three TF32 or BF16 products run on units that are 8 and 16 times as fast.
_SHARES = {"tf32x3": 1.2, "bf16x3": 1.5, "ieee": 0.5, "": 4.0}
_DIRECT_SHARE = 0.35
# Steps of a product that a tile's start and end cost.
_OVERHEAD = 2


def share(windows: Windows, tiling: Tiling, images: int, places: int) -> float:
    """Of the peak, what a kernel should reach."""
    tiles = _programs(windows, images * places, tiling.filters, tiling.places)
    filling = min(1.0, tiles / PROGRAMS)
    used = prod((images, places)) / (-(-images * places // tiling.places) * tiling.places)
    if not tiling.across:
        used = places / (-(-places // tiling.places) * tiling.places)
    used *= windows.filters / (-(-windows.filters // tiling.filters) * tiling.filters)
    if tiling.form == "direct":
        return _DIRECT_SHARE * used * filling
    whole = windows.channels if tiling.form == "channels" else windows.channels * windows.taps
    used *= whole / (-(-whole // tiling.depth) * tiling.depth)
    steps = windows.channels * windows.taps / windows.phases / tiling.depth
    return _SHARES[tiling.precision] * used * filling * steps / (steps + _OVERHEAD)
