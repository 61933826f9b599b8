"""A trap in a burst: an input changes while the burst is under way.

All sets of a burst lie in the runner's memory from the first, so a candidate could answer for many
of them in one go. In some bursts, which are not timed, one set is touched once more in the middle.
Whoever has read it ahead of its call by then returns the answer to what it was before.

An honest runner can't have, where the result of the call before the last one is not there yet: it
copies out what a call has returned before it begins the next. That is found out afterwards, by what
was in the output buffer when the set had been touched; what a candidate puts there to look as if it
were done is no result either. In all other cases the touch came too late, and says nothing.
"""

import contextlib
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from tools.judge.buffers import Buffers, same_bits
from tools.judge.pool import Pool

# Bursts of fewer calls, or of less time, are over before anything could be changed in them.
LEAST_CALLS, LEAST_SECONDS = 8, 0.0003
# When, as shares of what a burst takes.
EARLIEST, LATEST = 0.1, 0.8
# Half of the sets are those whose turn it is about then, give or take so many calls: who answers
# for a few at a time has just read them.
NEAR = 8
# How many calls before a set's own it is whose result must be missing.
BEFORE = 2


@dataclass
class Trap:
    """One burst's.

    Args:
        pool: the inputs.
        buffers: what the burst's results are copied to.
        chosen: the sets of the burst, in the order of its calls.
        seconds: what such a burst takes.
        chance: draws when and which.
    """

    pool: Pool
    buffers: Buffers
    chosen: list[int]
    seconds: float
    chance: random.Random
    touched: int = 0
    _there: list[torch.Tensor] = field(default_factory=list)

    def spring(self) -> None:
        """Touch a set; called when the burst has been asked for."""
        calls = len(self.chosen)
        when = self.chance.uniform(EARLIEST, LATEST)
        near = round(when * calls) + self.chance.randint(-NEAR, NEAR)
        anywhere = self.chance.randrange(calls)
        self.touched = self.chance.choice((min(max(near, BEFORE), calls - 1), anywhere))
        time.sleep(self.seconds * when)
        self.pool.touch(self.chosen[self.touched])
        if self.touched >= BEFORE:
            self._there = [one.clone() for one in self.buffers.of(self.touched - BEFORE)]

    @property
    def sprung(self) -> bool:
        """Whether the set was touched before an honest runner could read it; after the burst."""
        if not self._there:
            return False
        final = self.buffers.of(self.touched - BEFORE)
        return not all(map(same_bits, final, self._there))


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Have this thread run as soon as it can, where this user may ask for that.

    A runner that spins on every core would hold it up until the burst is over.
    """
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, policy, priority)


def can_be_set(pool: Pool, seconds: float) -> bool:
    """Whether bursts of this op, which take so long, can have a trap."""
    return (
        pool.burst >= LEAST_CALLS
        and seconds >= LEAST_SECONDS
        # On a device nothing is copied out before the end.
        and pool.copy_ns > 0
        and pool.redraw is None
        # A private copy may have been made of what is touched.
        and not pool.sets.private
    )
