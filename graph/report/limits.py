"""How much of a run's text goes onto its page: bounded part by part, and tighter if that is needed.

The page must stay under a megabyte, so that it can be mailed, kept and opened anywhere.
"""

from typing import NamedTuple

# Of the finished page, in bytes.
LARGEST = 950_000


class Limits(NamedTuple):
    """Most characters of each kind of text; what is said in the plural is for all of them together.

    `opened` is how many attempts can be opened; the others are rows with their verdict alone. Of
    more than `rows` attempts, and of more than so many plans, only the latest are there.
    """

    best: int = 40_000
    reference: int = 20_000
    sources: int = 60_000
    source: int = 12_000
    diffs: int = 60_000
    diff: int = 9_000
    pages: int = 90_000
    page: int = 14_000
    log: int = 4_000
    opened: int = 80
    rows: int = 100_000
    reason: int = 4_000

    def each_source(self, trials: int) -> int:
        """Of one attempt's source, where there are so many."""
        return min(self.source, self.sources // max(1, trials))

    def each_diff(self, trials: int) -> int:
        """Of one attempt's changes."""
        return min(self.diff, self.diffs // max(1, trials))

    def each_page(self, pages: int) -> int:
        """Of one cited page."""
        return min(self.page, self.pages // max(1, pages))

    def note(self, trials: int) -> str:
        """What was cut so that the page of a run of so many trials stays small; empty if nothing.

        What is cut in place, by the usual limits, says so where it stands.
        """
        cut: list[str] = []
        if self != Limits():
            sources = f"an attempt's source after {self.each_source(trials):,} characters"
            cut += [
                sources if self.source else "an attempt's source altogether",
                f"the winner's after {self.best:,}",
                f"a log after {self.log:,}",
            ]
        if trials > self.opened:
            cut.append(f"what lies behind all but {self.opened} attempts")
        if trials > self.rows:
            cut.append(f"all but {self.rows} attempts and the reasons for them")
        if not cut:
            return ""
        return (
            f"This page is kept under a megabyte. Left out: {', '.join(cut)}. All of it lies in "
            "the run's folder, under trials/ and best/."
        )


_SMALL = Limits(
    best=10_000, reference=4_000, sources=0, source=0, diffs=8_000, diff=1_000, pages=6_000,
    page=2_000, log=300, opened=20,
)  # fmt: skip
LEVELS = (
    Limits(),
    Limits(sources=40_000, source=6_000, diffs=40_000, diff=4_000, pages=50_000, page=8_000),
    Limits(
        best=20_000, reference=8_000, sources=16_000, source=3_000, diffs=16_000, diff=2_000,
        pages=16_000, page=4_000, log=1_200, opened=60,
    ),
    _SMALL,
    _SMALL._replace(rows=200, reason=240),
)  # fmt: skip
