"""Time: candidate and baselines interleaved in mirrored blocks, on the judge's clock.

A block runs every arm once in one order and once in the reverse, so that whatever drifts meanwhile
cancels within it. Each call gets the next input set, changed a moment before; some outputs, drawn
afterwards, are checked against the oracle.
"""

import contextlib
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tools.judge.blocks import LEAST_BLOCKS, Arm, all_tight, enough
from tools.judge.inputs import Perturbation
from tools.judge.lane import InputSets, Lane
from tools.judge.runners import FAVOURED, RUNNER_FAILURES

MOST_BLOCKS = 120
# On a busy machine, time to wait for quiet blocks in.
PATIENCE = 2.0
# Blocks of very slow ops: fewer of them bound the time, and the interval says what that costs.
LEAST_SLOW_BLOCKS, SLOW_BLOCK_SECONDS = 5, 2.5
CHECKPOINTS = frozenset({8, 12, 18, 27, 40, 60, 90})
WARM_UPS = 2
HANDSHAKES = 15
MOST_CHECKED = 4
CHECKED_BYTES = 1 << 30


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
        sets: input sets that every arm has bound.
        output_elements: how many elements the op returns.
        watched: the arm whose outputs are kept for checking, if any.
    """

    def __init__(self, sets: InputSets, output_elements: int, watched: str = "") -> None:
        self._sets = sets
        self._perturb = [Perturbation(bundle.tensors, output_elements) for bundle in sets.bundles]
        self._next = 0
        self._watched = watched
        self._chance = random.SystemRandom()
        self._seen = 0
        self.kept: list[Kept] = []

    def warm_up(self, arm: Arm) -> None:
        """Calls that map every page and fill every cache which may be filled."""
        for index in range(len(self._sets.bundles)):
            arm.lane.call(index)
            arm.lane.collect()
        for _ in range(WARM_UPS):
            arm.lane.sample(self._advance())
        arm.lane.runner.favour()
        arm.lane.runner.freeze()

    def run(self, arms: Sequence[Arm], seconds: float) -> int:
        """Blocks until the first arm's intervals are tight, or time is up; returns their number."""
        threads = torch.get_num_threads()
        # The judge's own thread pool would spin on the cores that the runners are timed on.
        torch.set_num_threads(1)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, FAVOURED)
        began = time.monotonic()
        done = 0
        try:
            while done < MOST_BLOCKS:
                for arm in (*arms, *reversed(arms)):
                    self._one(arm)
                done += 1
                elapsed = time.monotonic() - began
                slow = elapsed / done > SLOW_BLOCK_SECONDS
                least = LEAST_SLOW_BLOCKS if slow else LEAST_BLOCKS
                limit = seconds if slow or enough(arms) else PATIENCE * seconds
                if done >= least and elapsed > limit:
                    break
                if done in CHECKPOINTS and all_tight(arms):
                    break
        finally:
            torch.set_num_threads(threads)
            os.setpriority(os.PRIO_PROCESS, 0, own)
        return done

    def _one(self, arm: Arm) -> None:
        index = self._advance()
        try:
            arm.samples.append(arm.lane.sample(index))
        except RUNNER_FAILURES as failure:
            if self._watched and arm.name != self._watched:
                raise BaselineBroke(f"{arm.name} stopped working: {failure}") from failure
            raise
        if arm.name == self._watched:
            self._maybe_keep(arm.lane, index)

    def _advance(self) -> int:
        index = self._next
        self._next = (index + 1) % len(self._sets.bundles)
        self._perturb[index].apply()
        return index

    def _maybe_keep(self, lane: Lane, index: int) -> None:
        """Reservoir sampling: every call has the same chance, and nobody knows beforehand which."""
        self._seen += 1
        tensors = self._sets.bundles[index].tensors
        size = sum(t.nbytes for t in tensors) + sum(t.nbytes for t in lane.outputs)
        room = max(1, min(MOST_CHECKED, CHECKED_BYTES // max(1, size)))
        slot = len(self.kept) if len(self.kept) < room else self._chance.randrange(self._seen)
        if slot >= room:
            return
        kept = Kept(
            tuple(tensor.clone() for tensor in tensors),
            tuple(tensor.clone() for tensor in lane.outputs),
            self._sets.arguments[index],
        )
        self.kept[slot : slot + 1] = [kept]


def handshake_ns(lane: Lane) -> float:
    """What a request costs before any work is done, on a lane that is trusted."""
    return statistics.median(lane.handshake_ns() for _ in range(HANDSHAKES))
