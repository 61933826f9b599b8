"""The lines of the attempt tree, as one small SVG a row; a row that opens stretches its lines."""

from markupsafe import Markup

from graph.report.kin import Row

# CSS pixels: where a row's mark stands, and how far lanes lie apart.
CENTRE = 29
LANE = 18
WIDEST = 110
MARK = 5.5


class Lines:
    """Draws the lines of every row of one tree.

    Args:
        rows: all of them, in order.
        led: the trials on the way to the one that is ahead; their line is thick.
        winner: the trial that is handed over.
    """

    def __init__(self, rows: list[Row], led: set[int], winner: int | None) -> None:
        lanes = max((row.lane for row in rows), default=0) + 1
        self.step = max(6, min(LANE, WIDEST // lanes))
        self.width = lanes * self.step + 6
        self._led = led | {0} if led else set()
        self._winner = winner
        # The thick line lies in the first lane and ends in the last row that it leads to.
        self._rank = {row.number: at for at, row in enumerate(rows)}
        self._end = max((self._rank[number] for number in self._led), default=-1)

    def of(self, row: Row, tone: str) -> Markup:
        """The drawing of one row; `tone` is its verdict's, or `root` for the reference."""
        x, goes_on = self._at(row.lane), self._rank[row.number] < self._end
        parts: list[str] = []
        if row.branch is not None:
            left, bend = self._at(row.branch), min(7, self.step - 2)
            turn = f"M{left:g} {CENTRE - bend} q0 {bend} {bend} {bend} H{x:g}"
            parts.append(f'<path d="{turn}" class="wire"/>')
        for lane in row.through:
            led = lane == 0 and goes_on
            parts.append(_line(self._at(lane), "0", "100%", led=led))
        on_way = row.number in self._led
        if row.up:
            parts.append(_line(x, "0", f"{CENTRE}", led=on_way))
        if row.down:
            parts.append(_line(x, f"{CENTRE}", "100%", led=on_way and goes_on))
        parts.append(_mark(x, tone, winner=row.number == self._winner))
        return Markup(
            f'<svg class="lanes" width="{self.width}" height="100%" aria-hidden="true">'
            + "".join(parts)
            + "</svg>"
        )

    def _at(self, lane: int) -> float:
        # Halves of a pixel are the middle of one, so that lines end where the next begin.
        return 8.5 + lane * self.step


def _line(x: float, top: str, bottom: str, *, led: bool) -> str:
    kind = "wire led" if led else "wire"
    return f'<line x1="{x:g}" x2="{x:g}" y1="{top}" y2="{bottom}" class="{kind}"/>'


def _mark(x: float, tone: str, *, winner: bool) -> str:
    """A shape for each outcome, so that it can be told without its colour."""
    y, r = CENTRE, MARK
    if tone == "root":
        return f'<rect x="{x - 4:g}" y="{y - 4}" width="8" height="8" class="mark root"/>'
    if winner:
        points = f"{x:g},{y - 8} {x + 8:g},{y} {x:g},{y + 8} {x - 8:g},{y}"
        return f'<polygon points="{points}" class="mark won"/>'
    if tone in ("bad", "warn"):
        cross = f"M{x - 4:g} {y - 4} l8 8 m0 -8 l-8 8"
        return (
            f'<circle cx="{x:g}" cy="{y}" r="7" class="mark hole"/>'
            f'<path d="{cross}" class="mark cross"/>'
        )
    return f'<circle cx="{x:g}" cy="{y}" r="{r:g}" class="mark {tone}"/>'
