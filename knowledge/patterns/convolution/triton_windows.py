"""Triton that multiplies filters with windows of an image: a tile of filters by places a program.

Three forms, which differ in how the sum over channels and taps is walked. `channels`: tap by tap,
so many channels at a time, on tensor cores; the weight is brought into that order first. `window`:
so many products at a time, whatever their channel and tap, where there are few channels. `direct`:
one by one, without tensor cores, where there are few of them or few filters to share what is read.

A transposed convolution is computed by the *phase* of its results: o = t stride + phase takes the
taps k with  o + before - k dilation  divisible by the stride, of the image's elements t + shift.
"""

from math import gcd, prod

from knowledge.loops.spelling import indented
from knowledge.loops.triton_epilogue import Grid, TritonEpilogue
from knowledge.patterns.convolution.triton_forms import Tiling, Windows

# The most programs along any dimension of a grid but the first.
MOST_ACROSS = 65535
# Taps of one channel that are unrolled.
UNROLLED = 64


class WindowPrinter:
    """Prints the kernel of one convolution; `body` is all between its head and its end."""

    def __init__(self, windows: Windows, tiling: Tiling, epilogue: TritonEpilogue | None) -> None:
        self.windows, self.tiling, self.epilogue = windows, tiling, epilogue
        # Where a filter, and a place, stand in a tile; a product stands across from either.
        self.of_filter, self.of_place = "[:, None]", "[None, :]"
        if not tiling.filters_first:
            self.of_filter, self.of_place = self.of_place, self.of_filter
        self.uneven = windows.filters % tiling.filters != 0
        self.depth = windows.channels * windows.taps

    def body(self, bias: bool, kept: bool) -> list[str]:
        """The statements of the kernel.

        Args:
            bias: whether a number is added for each filter.
            kept: whether the convolution's own result is stored, as `result`.
        """
        sums = {"channels": self._by_channels, "window": self._by_window, "direct": self._direct}
        shape = "(FILTERS, PLACES)" if self.tiling.filters_first else "(PLACES, FILTERS)"
        lines = [*self._where(), f"total = tl.zeros({shape}, tl.float32)"]
        lines += sums[self.tiling.form]()
        if bias:
            mask = ", mask=in_filters" if self.uneven else ""
            lines.append(f"total += tl.load(bias + channel{mask}).to(tl.float32)")
        space = " * ".join(f"OUT_{a.upper()}" for a in self.windows.letters)
        all_filters = self.windows.groups * self.windows.filters
        lines.append(
            f"at = number * ({all_filters} * {space}) + out_place + channel{_times(space)}"
        )
        grid = self.grid()
        if kept:
            mask = grid.mask(tuple(range(len(grid.sizes))))
            lines.append(f"tl.store(result + at, total, mask={mask})")
        return lines + (self.epilogue.lines("total", grid) if self.epilogue else [])

    @property
    def reordered(self) -> bool:
        """Whether the weight must lie [filter, tap, channel]: not as it is given."""
        by_channels = self.tiling.form == "channels"
        return self.windows.transposed or (
            by_channels and 1 not in (self.windows.taps, self.windows.channels)
        )

    def grid(self) -> Grid:
        """What the kernel calls the indices of the result."""
        w, letters = self.windows, self.windows.letters
        rank = len(letters)
        sizes = ("images", str(w.groups * w.filters), *(f"OUT_{a.upper()}" for a in letters))
        index: dict[tuple[int, ...], str] = {(0,): "number", (1,): "channel"}
        index |= {(2 + at,): f"out_{a}" for at, a in enumerate(letters)}
        index |= {tuple(range(2, 2 + rank)): "out_place", tuple(range(2 + rank)): "at"}
        guarded = frozenset((*([0] if self.tiling.across else []), *range(2, 2 + rank)))
        masks = (
            (guarded, "in_image"), (frozenset({1}), "in_filters" if self.uneven else "")
        )  # fmt: skip
        return Grid(sizes, index, masks)

    def blocks_of_filters(self) -> int:
        """Programs that share the places of one group."""
        return -(-self.windows.filters // self.tiling.filters)

    def steps(self, a: str) -> str:
        """Places along a dimension, as an expression."""
        stride = self.windows.stride[self.windows.letters.index(a)]
        if self.windows.transposed and stride > 1:
            return f"((OUT_{a.upper()} + {stride - 1}) // {stride})"
        return f"OUT_{a.upper()}"

    def _where(self) -> list[str]:
        """Which filters and places a program has, and where their windows start."""
        w, shared = self.windows, self.blocks_of_filters()
        letters = w.letters
        space = " * ".join(f"IN_{a.upper()}" for a in letters)
        lines = ["# Neighbouring programs read the same part of the image."] if shared > 1 else []
        apart = w.groups * w.phases
        if apart > MOST_ACROSS:
            lines += [
                f"program = tl.program_id(0) // {apart}",
                f"group = tl.program_id(0) % {apart}",
            ]
        else:
            lines.append("program = tl.program_id(0)")
            lines += ["group = tl.program_id(1)"] if apart > 1 else []
        lines += self._phase()
        first = f"program % {shared} * FILTERS + " if shared > 1 else ""
        lines.append(f"own = {first}tl.arange(0, FILTERS){self.of_filter}")
        lines += [f"in_filters = own < {w.filters}"] if self.uneven else []
        lines.append(f"channel = group * {w.filters} + own" if w.groups > 1 else "channel = own")
        block = f"(program // {shared})" if shared > 1 else "program"
        lines += self._place(block)
        group = f" + group * ({w.channels} * {space})" if w.groups > 1 else ""
        start = f"image + number * ({w.groups * w.channels} * {space}){group}"
        lines.append(f"source = {start}")
        return [*lines, f"filters = weight + channel{_times(self.depth)}"]

    def _place(self, block: str) -> list[str]:
        """The places of a program: `number` of the image, indices of the result, first pixels."""
        w, letters = self.windows, self.windows.letters
        space = " * ".join(self.steps(a) for a in letters)
        run = f"tl.arange(0, PLACES){self.of_place}"
        if self.tiling.across:
            lines = [
                f"flat = {block}.to(tl.int64) * PLACES + {run}",
                f"number = flat // {_term(space)}",
                f"place = (flat % {_term(space)}).to(tl.int32)",
                "in_image = number < images",
            ]
        else:
            lines = [
                f"strips = tl.cdiv({space}, PLACES)",
                f"number = ({block} // strips).to(tl.int64)",
                f"place = {block} % strips * PLACES + {run}",
                f"in_image = place < {space}",
            ]
        step = "step_" if w.transposed else "out_"
        lines += [f"{step}{a} = {text}" for a, text in self._split("place", letters)]
        for at, a in enumerate(letters):
            if w.transposed:
                phase = f" * {w.stride[at]} + phase_{a}" if w.stride[at] > 1 else ""
                lines += [f"out_{a} = step_{a}{phase}", f"in_image &= out_{a} < OUT_{a.upper()}"]
                lines.append(f"first_{a} = step_{a} + shift_{a}")
            elif not w.plain:
                stride = f" * {w.stride[at]}" if w.stride[at] > 1 else ""
                before = f" - {w.before[at]}" if w.before[at] else ""
                lines.append(f"first_{a} = out_{a}{stride}{before}")
        if w.transposed:
            return [*lines, f"out_place = {self._joined('out_', 'OUT_')}"]
        return [*lines, "out_place = place"]

    def _split(self, flat: str, letters: str) -> list[tuple[str, str]]:
        """The indices along each dimension of a place that counts through all of them."""
        found = []
        for at, a in enumerate(letters):
            after = " * ".join(self.steps(b) for b in letters[at + 1 :])
            divided = f"{flat} // {_term(after)}" if after else flat
            found.append((a, f"{divided} % {self.steps(a)}" if at else divided))
        return found

    def _joined(self, index: str, size: str) -> str:
        """A pixel's place from its indices."""
        text = ""
        for a in self.windows.letters:
            text = f"{_term(text)} * {size}{a.upper()} + {index}{a}" if text else f"{index}{a}"
        return text

    def _phase(self) -> list[str]:
        """For a transposed convolution: the taps that this program's results take."""
        w = self.windows
        if not w.transposed:
            return []
        lines: list[str] = []
        if w.phases > 1:
            lines.append(f"phase = group % {w.phases}" if w.groups > 1 else "phase = group")
            lines += [f"group = group // {w.phases}"] if w.groups > 1 else []
        for at, a in enumerate(w.letters):
            inner = prod(w.stride[at + 1 :])
            stride, dilation, before = w.stride[at], w.dilation[at], w.before[at]
            if stride > 1:
                whole = f"phase // {inner}" if inner > 1 else "phase"
                lines.append(f"phase_{a} = {whole} % {stride}")
            common = gcd(stride, dilation)
            period, phase = stride // common, f"phase_{a}" if stride > 1 else "0"
            lines += [f"reach_{a} = {phase} + {before}"]
            inverse = pow(dilation // common, -1, period) if period > 1 else 0
            first = f"reach_{a}" + (f" // {common}" if common > 1 else "")
            first = f"{first}{_times(inverse)} % {period}" if period > 1 else "0"
            lines += [
                f"tap_{a} = {first}",
                f"taps_{a} = ({w.kernel[at] + period - 1} - tap_{a}) // {period}",
            ]
            if common > 1:
                lines.append(f"taps_{a} = tl.where(reach_{a} % {common} == 0, taps_{a}, 0)")
            lines.append(f"shift_{a} = (reach_{a} - tap_{a}{_times(dilation)}) // {stride}")
        return lines

    def _pixel(self, tap: str, side: str) -> tuple[list[str], str, str]:
        """Lines that find the pixels of a tap, their place in a channel, and their mask."""
        w = self.windows
        if w.plain:
            return [], "place", "in_image"
        lines, mask = [], ["in_image"]
        for at, a in enumerate(w.letters):
            if w.transposed:
                moved = f" - {self._tap_index(tap, at)}{_times(self._apart(at))}"
            elif w.kernel[at] > 1:
                moved = f" + {self._tap_index(tap, at)}{_times(w.dilation[at])}"
                moved = f" + ({moved[3:]}){side}" if side else moved
            else:
                moved = ""
            lines.append(f"{a} = first_{a}{moved}")
            if w.transposed or w.before[at] or w.after[at]:
                mask.append(f"({a} >= 0) & ({a} < IN_{a.upper()})")
        return lines, self._joined("", "IN_"), " & ".join(mask)

    def _apart(self, at: int) -> int:
        """By how many pixels the taps of a phase are apart."""
        w = self.windows
        return w.dilation[at] // gcd(w.stride[at], w.dilation[at])

    def _tap_index(self, tap: str, at: int) -> str:
        """A tap's index along a dimension, of those a phase has where it is transposed."""
        w, letters = self.windows, self.windows.letters
        own = [f"taps_{a}" for a in letters] if w.transposed else [str(k) for k in w.kernel]
        after = " * ".join(one for one in own[at + 1 :] if one != "1")
        outer = [one for one in own[:at] if one != "1"]
        divided = f"{tap} // {_term(after)}" if after else tap
        return f"{divided} % {own[at]}" if outer else divided

    def _weight_tap(self, tap: str) -> str:
        """Which tap of the whole window it is."""
        w = self.windows
        if not w.transposed:
            return tap
        text = ""
        for at, a in enumerate(w.letters):
            period = w.stride[at] // gcd(w.stride[at], w.dilation[at])
            index = f"(tap_{a} + {self._tap_index(tap, at)}{_times(period)})"
            text = f"({text} * {w.kernel[at]} + {index})" if text else index
        return text

    def _count(self) -> str:
        """How many taps there are."""
        w = self.windows
        return " * ".join(f"taps_{a}" for a in w.letters) if w.transposed else str(w.taps)

    def _by_channels(self) -> list[str]:
        """Tap by tap, DEPTH channels at a time; the weight lies [filter, tap, channel]."""
        w = self.windows
        blocks, uneven = -(-w.channels // self.tiling.depth), w.channels % self.tiling.depth
        single = w.taps == 1 and not w.transposed
        at, where, mask = self._pixel("tap", "")
        first = "step" if single else f"step % {blocks}"
        lines = [] if single else [f"tap = step // {blocks}" if blocks > 1 else "tap = step"]
        start = f"{first} * DEPTH + " if blocks > 1 else ""
        lines += [f"c = {start}tl.arange(0, DEPTH)", *at]
        space = " * ".join(f"IN_{a.upper()}" for a in w.letters)
        inside = f" & (c{self.of_filter} < {w.channels})" if uneven else ""
        tap = "" if single else f"{self._weight_tap('tap')} * {w.channels} + "
        lines += [
            f"valid = {mask}{inside}",
            f"pixel = {where} + c{self.of_filter}{_times(space)}",
            "pixels = tl.load(source + pixel, mask=valid, other=0.0)",
            self._load_taps(f"{tap}c{self.of_place}", f"c{self.of_place} < {w.channels}", uneven),
            self._dot(),
        ]
        count = str(blocks) if single else f"{self._count()}{_times(blocks)}"
        return [f"for step in range({count}):", *indented(lines)]

    def _by_window(self) -> list[str]:
        """DEPTH products at a time; the weight lies as it is given: [filter, channel, tap]."""
        w = self.windows
        uneven = self.depth % self.tiling.depth
        at, where, mask = self._pixel(f"(k % {w.taps})", self.of_filter)
        space = " * ".join(f"IN_{a.upper()}" for a in w.letters)
        inside = f" & (k{self.of_filter} < {self.depth})" if uneven else ""
        lines = [
            "k = start + tl.arange(0, DEPTH)",
            *at,
            f"valid = {mask}{inside}",
            f"pixel = {where} + (k // {w.taps}){self.of_filter}{_times(space)}",
            "pixels = tl.load(source + pixel, mask=valid, other=0.0)",
            self._load_taps(f"k{self.of_place}", f"k{self.of_place} < {self.depth}", uneven),
            self._dot(),
        ]
        return [f"for start in range(0, {self.depth}, DEPTH):", *indented(lines)]

    def _load_taps(self, where: str, inside: str, uneven: int) -> str:
        masks = [text for text, needed in (("in_filters", self.uneven), (inside, uneven)) if needed]
        guard = f", mask={_all(masks)}, other=0.0" if masks else ""
        return f"taps = tl.load(filters + {where}{guard})"

    def _dot(self) -> str:
        pair = "taps, pixels" if self.tiling.filters_first else "pixels, taps"
        precise = self.tiling.precision
        precise = f', input_precision="{precise}"' if precise else ""
        return f"total = tl.dot({pair}, total{precise})"

    def _direct(self) -> list[str]:
        """One product after the other; taps are unrolled where there are few."""
        w = self.windows
        space = " * ".join(f"IN_{a.upper()}" for a in w.letters)
        at, where, mask = self._pixel("tap", "")
        of_tap, of_channel = (w.channels, 1) if self.reordered else (1, w.taps)
        weight = [f"c{_times(of_channel)}"] if w.channels > 1 else []
        if w.taps > 1:
            weight.append(f"{self._weight_tap('tap')}{_times(of_tap)}")
        guard = ", mask=in_filters, other=0.0" if self.uneven else ""
        lines = [
            *at,
            f"valid = {mask}",
            f"pixel = {where}" + (f" + c{_times(space)}" if w.channels > 1 else ""),
            "pixels = tl.load(source + pixel, mask=valid, other=0.0).to(tl.float32)",
            f"taps = tl.load({' + '.join(['filters', *weight])}{guard}).to(tl.float32)",
            "total += taps * pixels",
        ]
        if w.transposed or w.taps > UNROLLED:
            lines = [f"for tap in range({self._count()}):", *indented(lines)]
        elif w.taps > 1:
            lines = [f"for tap in tl.static_range({w.taps}):", *indented(lines)]
        if w.channels > 1:
            lines = [f"for c in range({w.channels}):", *indented(lines)]
        return lines


def _times(factor: int | str) -> str:
    """What multiplies an expression by a factor; nothing where it is 1."""
    return "" if factor in (1, "1") else f" * {_term(str(factor))}"


def _term(text: str) -> str:
    """An expression that may stand in a product."""
    return text if text.isidentifier() or text.isdigit() or _enclosed(text) else f"({text})"


def _enclosed(text: str) -> bool:
    """Whether one pair of parentheses holds all of it."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return letter == ")" and position == len(text) - 1
    return False


def _all(masks: list[str]) -> str:
    return " & ".join(f"({one})" if " " in one else one for one in masks)
