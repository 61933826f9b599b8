"""The compiled baseline's runner, set to work before anybody asks for it.

torch.compile keeps one core busy for ten seconds, most of them its own imports: meanwhile the judge
looks at the reference and writes the exam. Whatever is timed meanwhile is timed `alone`.
"""

import contextlib
from collections.abc import Callable, Iterator

from tools.judge.lane import Lane


class Begun:
    """A lane that may be at work, and is stopped while it must not be."""

    def __init__(self) -> None:
        self._lane: Lane | None = None
        self._held = False
        self._taken = False

    def watch(self, lane: Lane) -> None:
        """Look after a lane that has just been set to work."""
        self._lane = lane

    def hold(self) -> None:
        """Stop it where it is, until somebody waits for it or it is let go on."""
        if self._lane is not None and self._lane.runner.busy:
            self._lane.runner.freeze()
            self._held = True

    @contextlib.contextmanager
    def alone(self) -> Iterator[Callable[[], None]]:
        """Have it stopped meanwhile, or until what this gives is called; then it is as it was."""
        resume = _nothing if self._held else self._go_on
        self.hold()
        try:
            yield resume
        finally:
            resume()

    def _go_on(self) -> None:
        if self._lane is not None and self._lane.runner.busy:
            self._lane.runner.thaw()
        self._held = False

    def take(self) -> Lane | None:
        """The lane, once, for whoever will use and close it; it is still looked after here."""
        taken, self._taken = self._taken, True
        return None if taken else self._lane

    def close(self) -> None:
        """End it, unless it was taken."""
        if (lane := self.take()) is not None:
            lane.close()


def _nothing() -> None:
    pass
