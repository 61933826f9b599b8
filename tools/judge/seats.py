"""Seats: how many judges a process keeps open, whoever uses them.

An open judge holds its reference, the oracle's answers and some processes with torch in them. Where
all seats are taken, the judge that was asked longest ago and is idle is closed; where none is idle,
whoever wants one waits.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from knowledge.device import memory_bytes
from tools.judge.panel import MEMORY_EACH


class Holder(Protocol):
    """Somebody who has a judge open."""

    def give_way(self) -> None:
        """Close it; it is opened anew when it is wanted again."""


class Seats:
    """So many judges at most.

    Args:
        most: judges open at once; None for as many as this machine has memory and cores for.
    """

    def __init__(self, most: int | None = None) -> None:
        if most is not None and most < 1:
            raise ValueError(f"{most} seats are too few: one judge has to be open")
        self.most = most or _as_many_as_fit()
        self._changed = threading.Condition()
        # What each holder takes, the one that was asked longest ago first.
        self._taken: dict[Holder, int] = {}
        self._busy: set[Holder] = set()

    @contextmanager
    def taken(self, holder: Holder, weight: int = 1) -> Iterator[None]:
        """Within this block the holder may have `weight` judges open; it keeps them afterwards."""
        self._take(holder, min(weight, self.most))
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(holder)
                self._changed.notify_all()

    def leave(self, holder: Holder) -> None:
        """The holder has closed its judge."""
        with self._changed:
            self._taken.pop(holder, None)
            self._changed.notify_all()

    def _take(self, holder: Holder, weight: int) -> None:
        with self._changed:
            self._taken.pop(holder, None)
            while sum(self._taken.values()) + weight > self.most:
                idle = next((one for one in self._taken if one not in self._busy), None)
                if idle is None:
                    self._changed.wait()
                    continue
                # Under the lock: until it is closed, its memory is not free.
                idle.give_way()
                del self._taken[idle]
            self._taken[holder] = weight
            self._busy.add(holder)


def _as_many_as_fit() -> int:
    return max(1, min(memory_bytes() // MEMORY_EACH, os.cpu_count() or 1))
