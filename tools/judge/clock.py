"""Time: candidate and baselines interleaved in mirrored blocks, on the judge's clock.

A block runs every arm once in one order and once in the reverse, so that whatever drifts meanwhile
cancels within it. Each call gets an input set drawn by lot, all of its values new; some outputs,
drawn afterwards, are checked against the oracle.
"""

import contextlib
import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tools.judge.blocks import (
    LEAST_BLOCKS,
    TIGHT,
    TIGHT_ENOUGH_TO_RANK,
    Arm,
    all_tight,
    behind,
    enough,
)
from tools.judge.lane import Lane, Sample
from tools.judge.oracle import own
from tools.judge.pool import Pool
from tools.judge.runners import FAVOURED, RUNNER_FAILURES
from tools.judge.trap import Trap, at_once, can_be_set

MOST_BLOCKS = 120
# On a busy machine, time to wait for quiet blocks in.
PATIENCE = 2.0
# Blocks of very slow ops: fewer of them bound the time, and the interval says what that costs.
LEAST_SLOW_BLOCKS, SLOW_BLOCK_SECONDS = 5, 2.5
# The intervals are looked at after so many times more blocks each time, give or take this share.
CHECKPOINT_GROWTH, CHECKPOINT_SPREAD = 1.5, 0.15
WARM_UPS, WARM_CALLS = 2, 4
HANDSHAKES = 15
CHECKED_BYTES = 1 << 30
# Blocks have a trap in them until so many were sprung in time; then so many of them have.
LEAST_TRAPPED, TRAPPED_BLOCKS = 4, 0.5


class BaselineBroke(Exception):
    """A baseline failed in the middle of a measurement, which is not the candidate's doing."""


@dataclass(frozen=True)
class Kept:
    """Inputs and outputs of one timed call, kept for the oracle."""

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    arguments: Any


class Clock:
    """Runs blocks over a fixed group of arms.

    Args:
        pool: the inputs.
        watched: the arm whose outputs are kept for checking, if any.
    """

    def __init__(self, pool: Pool, watched: str = "") -> None:
        self._pool = pool
        self._watched = watched
        self._chance = random.SystemRandom()
        self._seen = 0
        self.kept: list[Kept] = []
        self.trapped: list[Kept] = []

    def warm_up(self, arm: Arm) -> None:
        """Calls that map every page and fill every cache which may be filled."""
        numbers = range(len(self._pool.sets.bundles))
        for start in range(0, len(numbers), self._pool.burst):
            chosen = numbers[start : start + self._pool.burst]
            arm.lane.call(chosen, then="drop")
        deadline = time.monotonic() + self._pool.warm_up_s
        for done in itertools.count(1):
            self._sample(arm, self._choose())
            if done >= WARM_UPS and time.monotonic() > deadline:
                break
        arm.lane.runner.favour()
        arm.lane.runner.freeze()

    def run(self, arms: Sequence[Arm], seconds: float, to_beat: float | None = None) -> bool:
        """Blocks until the first arm's intervals are tight, or time is up.

        Args:
            arms: the one under judgement, then the baselines.
            seconds: for all blocks.
            to_beat: a speedup; a first arm that lies wholly behind it is not timed to the end, and
                others no longer than they need to be ranked.

        Returns:
            Whether it was stopped because it lies behind.
        """
        with self._quiet_judge():
            return self._blocks(arms, seconds, to_beat)

    def _blocks(self, arms: Sequence[Arm], seconds: float, to_beat: float | None) -> bool:
        checkpoints = self._draw_checkpoints()
        began = time.monotonic()
        done = 0
        while done < MOST_BLOCKS:
            # Nobody is always the one that runs right after itself, or after the same neighbour.
            turned = [*arms[done % len(arms) :], *arms[: done % len(arms)]]
            order = [*turned, *reversed(turned)]
            trap = self._draw_trap(arms[0], len(order))
            for place, arm in enumerate(order):
                if place == trap:
                    self._set_trap(arms[0])
                self._one(arm)
            done += 1
            elapsed = time.monotonic() - began
            slow = elapsed / done > SLOW_BLOCK_SECONDS
            least = LEAST_SLOW_BLOCKS if slow else LEAST_BLOCKS
            limit = seconds if slow or enough(arms) else PATIENCE * seconds
            if done >= least and elapsed > limit:
                return False
            if done in checkpoints:
                if all_tight(arms, TIGHT if to_beat is None else TIGHT_ENOUGH_TO_RANK):
                    return False
                if to_beat is not None and behind(arms, to_beat):
                    return True
        return False

    def _draw_checkpoints(self) -> frozenset[int]:
        """When to look whether to stop: drawn before the start, so that nobody can play for it."""
        found = []
        at = float(LEAST_BLOCKS)
        while at < MOST_BLOCKS:
            spread = 1 + CHECKPOINT_SPREAD * self._chance.uniform(-1, 1)
            found.append(max(LEAST_BLOCKS, round(at * spread)))
            at *= CHECKPOINT_GROWTH
        return frozenset(found)

    @contextlib.contextmanager
    def _quiet_judge(self) -> Iterator[None]:
        """One thread and priority: the judge's own pool would spin where the runners are timed."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, FAVOURED)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            os.setpriority(os.PRIO_PROCESS, 0, own)

    def _one(self, arm: Arm) -> None:
        chosen = self._choose()
        try:
            arm.samples.append(self._sample(arm, chosen))
        except RUNNER_FAILURES as failure:
            if self._watched and arm.name != self._watched:
                raise BaselineBroke(f"{arm.name} stopped working: {failure}") from failure
            raise
        if arm.name == self._watched:
            for slot, number in enumerate(chosen):
                self._maybe_keep(arm.lane, slot, number)

    def _draw_trap(self, arm: Arm, places: int) -> int | None:
        """Where in the next block the candidate gets another burst, with a trap in it, if it does.

        Anywhere: from how long it has been stopped it can't tell a trap from a timed burst.
        """
        if arm.name != self._watched or not arm.samples:
            return None
        sprung = len(self.trapped)
        if sprung >= max(LEAST_TRAPPED, self._pool.checked // 2) or (
            sprung >= LEAST_TRAPPED and self._chance.random() > TRAPPED_BLOCKS
        ):
            return None
        if not can_be_set(self._pool, self._burst_s(arm)):
            return None
        return self._chance.randrange(places)

    def _burst_s(self, arm: Arm) -> float:
        return arm.calls * min(sample.call_ns for sample in arm.samples) / 1e9

    def _set_trap(self, arm: Arm) -> None:
        chosen, lane = self._choose(), arm.lane
        trap = Trap(self._pool, lane.buffers, chosen, self._burst_s(arm), self._chance)
        touch = self._renewed(chosen)
        with at_once():
            lane.disturbed(chosen, touch, trap.spring, self._others(chosen))
        if trap.sprung:
            self.trapped.append(self._keep(lane, trap.touched, chosen[trap.touched]))

    def _choose(self) -> list[int]:
        """The sets of the next burst, in an order that nobody can foresee."""
        return self._chance.sample(range(len(self._pool.sets.bundles)), self._pool.burst)

    def _sample(self, arm: Arm, chosen: list[int]) -> Sample:
        touch = self._renewed(chosen)
        sample = arm.lane.sample(chosen, touch, self._others(chosen))
        return replace(sample, claimed_ns=sample.claimed_ns - self._pool.copy_ns)

    def _renewed(self, chosen: list[int]) -> Callable[[], None]:
        """Put new values into sets; what touches them at the last moment."""
        for number in chosen:
            self._pool.renew(number)

        def touch() -> None:
            for number in chosen:
                self._pool.touch(number)

        return touch

    def _others(self, chosen: list[int]) -> list[int]:
        """Sets for untimed calls just before: a process that was stopped finds its caches cold.

        That is the same for all arms only if none of them ever runs twice in a row.
        """
        if not self._pool.warm:
            return []
        left = [n for n in range(len(self._pool.sets.bundles)) if n not in chosen] or chosen
        return [self._chance.choice(left) for _ in range(min(WARM_CALLS, self._pool.burst))]

    def _maybe_keep(self, lane: Lane, slot: int, number: int) -> None:
        """Reservoir sampling: every call has the same chance, and nobody knows beforehand which."""
        self._seen += 1
        tensors = self._pool.sets.bundles[number].tensors
        size = sum(t.nbytes for t in (*tensors, *lane.buffers.of(slot)))
        room = max(1, min(self._pool.checked, CHECKED_BYTES // max(1, size)))
        place = len(self.kept) if len(self.kept) < room else self._chance.randrange(self._seen)
        if place < room:
            self.kept[place : place + 1] = [self._keep(lane, slot, number)]

    def _keep(self, lane: Lane, slot: int, number: int) -> Kept:
        return Kept(
            own(self._pool.sets.bundles[number].tensors),
            tuple(tensor.clone() for tensor in lane.buffers.of(slot)),
            self._pool.sets.arguments[number],
        )


def overhead_ns(lane: Lane, pool: Pool) -> float:
    """What a sample takes besides its calls: a request and, in a burst, the copies."""
    handshake = statistics.median(lane.handshake_ns() for _ in range(HANDSHAKES))
    return handshake + pool.burst * pool.copy_ns
