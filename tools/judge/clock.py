"""Time: candidate and baselines interleaved in mirrored blocks, on the judge's clock.

A block runs every arm once in one order and once in the reverse, so that whatever drifts meanwhile
cancels within it. Each call gets the next input set, changed a moment before; some outputs, drawn
afterwards, are checked against the oracle.
"""

import importlib
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch

from tools.judge.inputs import Perturbation
from tools.judge.lane import InputSets, Lane, Sample
from tools.verdict import Comparison

LEAST_BLOCKS, MOST_BLOCKS = 8, 40
# Blocks of very slow ops: fewer of them bound the time, and the interval says what that costs.
LEAST_SLOW_BLOCKS, SLOW_BLOCK_SECONDS = 5, 2.5
CHECKPOINTS = frozenset({8, 12, 18, 27})
TIGHT = 0.005
WARM_UPS = 2
HANDSHAKES = 15
RESAMPLES = 2000
MOST_CHECKED = 4
CHECKED_BYTES = 1 << 30
# Copying is not part of an op's time, but work that was put off until then is: what the candidate's
# copy takes over the baseline's by more than this is added to its time.
COPY_SLACK, COPY_SLACK_NS = 0.05, 20_000
DEFERRED_SHARE, DEFERRED_NS = 0.5, 300_000
CLAIM_SHARE, CLAIM_NS = 0.3, 300_000


@dataclass(frozen=True)
class Kept:
    """Inputs and outputs of one timed call, kept for the oracle."""

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    arguments: Any


@dataclass
class Arm:
    """One lane in a measurement, and its samples in order; two per block."""

    name: str
    lane: Lane
    samples: list[Sample] = field(default_factory=list)

    def median_ns(self, part: Callable[[Sample], int]) -> float:
        """The median of one figure over all calls."""
        return statistics.median(part(sample) for sample in self.samples)


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
        self._kept_bytes = 0
        self._seen = 0
        self.kept: list[Kept] = []

    def warm_up(self, arm: Arm) -> None:
        """Calls that map every page and fill every cache which may be filled."""
        for index in range(len(self._sets.bundles)):
            arm.lane.call(index)
            arm.lane.collect()
        for _ in range(WARM_UPS):
            arm.lane.sample(self._advance())
        arm.lane.runner.freeze()

    def run(self, arms: Sequence[Arm], seconds: float) -> int:
        """Blocks until the first arm's intervals are tight, or time is up; returns their number."""
        threads = torch.get_num_threads()
        # The judge's own thread pool would spin on the cores that the runners are timed on.
        torch.set_num_threads(1)
        began = time.monotonic()
        done = 0
        try:
            while done < MOST_BLOCKS:
                for arm in (*arms, *reversed(arms)):
                    self._one(arm)
                done += 1
                elapsed = time.monotonic() - began
                slow = elapsed / done > SLOW_BLOCK_SECONDS
                enough = done >= (LEAST_SLOW_BLOCKS if slow else LEAST_BLOCKS)
                if enough and elapsed > seconds:
                    break
                if done in CHECKPOINTS and _all_tight(arms):
                    break
        finally:
            torch.set_num_threads(threads)
        return done

    def _one(self, arm: Arm) -> None:
        index = self._advance()
        arm.samples.append(arm.lane.sample(index))
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


def _log_times(arm: Arm, overhead_ns: float = 0.0) -> list[float]:
    """One log time a block: the mean of its two calls."""
    logs = [math.log(max(sample.call_ns - overhead_ns, 1_000.0)) for sample in arm.samples]
    return [(a + b) / 2 for a, b in zip(logs[::2], logs[1::2], strict=True)]


def _all_tight(arms: Sequence[Arm]) -> bool:
    first, *others = arms
    for other in others:
        ratios = _log_ratios(other, first, 0.0, 0.0)
        low, high = _interval(ratios)
        if high - low > 2 * TIGHT:
            return False
    return True


def _log_ratios(over: Arm, under: Arm, overhead_ns: float, deferred_ns: float) -> list[float]:
    tops = _log_times(over, overhead_ns)
    bottoms = _log_times(under, overhead_ns - deferred_ns)
    return [top - bottom for top, bottom in zip(tops, bottoms, strict=True)]


def _interval(ratios: list[float]) -> tuple[float, float]:
    """95% bounds of the median, by bootstrap over blocks."""
    if max(ratios) == min(ratios):
        return ratios[0], ratios[0]
    # Loaded on first use: it takes as long as torch, and correctness alone needs none of it.
    stats = importlib.import_module("scipy.stats")
    found = stats.bootstrap(
        (ratios,), numpy.median, n_resamples=RESAMPLES, confidence_level=0.95, method="percentile"
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def compare_arms(
    baseline: Arm, candidate: Arm, overhead_ns: float, deferred_ns: float = 0.0
) -> Comparison:
    """The candidate against one baseline; `deferred_ns` is charged to each of its calls."""
    ratios = _log_ratios(baseline, candidate, overhead_ns, deferred_ns)
    low, high = _interval(ratios)
    return Comparison(
        baseline=baseline.name,
        baseline_ms=call_ms(baseline, overhead_ns),
        candidate_ms=call_ms(candidate, overhead_ns - deferred_ns),
        speedup=math.exp(statistics.median(ratios)),
        low=math.exp(low),
        high=math.exp(high),
        blocks=len(ratios),
    )


def call_ms(arm: Arm, overhead_ns: float) -> float:
    """The arm's median call, in milliseconds, handshake taken off."""
    return max(arm.median_ns(lambda sample: sample.call_ns) - overhead_ns, 1_000.0) / 1e6


def noise_of(one: Arm, other: Arm, overhead_ns: float) -> float:
    """How far from 1 the same code against itself may read: the farther end of the interval."""
    low, high = _interval(_log_ratios(one, other, overhead_ns, 0.0))
    return math.expm1(max(abs(low), abs(high)))


def deferred_ns(candidate: Arm, baseline: Arm) -> float:
    """How much longer the candidate's copies take than a baseline's: work left undone."""
    ours = candidate.median_ns(lambda sample: sample.copy_ns)
    theirs = baseline.median_ns(lambda sample: sample.copy_ns)
    return max(0.0, ours - theirs * (1 + COPY_SLACK) - COPY_SLACK_NS)


def mismatch(candidate: Arm, baseline: Arm, overhead_ns: float) -> str:
    """What the two clocks disagree about, in words; empty where they agree.

    A busy machine delays some calls and some copies; only what shows in three of four is a lie.
    """
    call = candidate.median_ns(lambda sample: sample.call_ns)
    usual_copy = baseline.median_ns(lambda sample: sample.copy_ns)
    left = _quartile([sample.copy_ns for sample in candidate.samples], 1) - usual_copy
    if left > max(DEFERRED_SHARE * max(call, usual_copy), DEFERRED_NS):
        return f"{left / 1e6:.2f} ms of work was left for after a call of {call / 1e6:.2f} ms"
    gaps = [sample.call_ns - overhead_ns - sample.claimed_ns for sample in candidate.samples]
    claimed = candidate.median_ns(lambda sample: sample.claimed_ns)
    allowed = max(CLAIM_SHARE * max(call, claimed), CLAIM_NS)
    if _quartile(gaps, 1) > allowed or _quartile(gaps, 3) < -allowed:
        return f"the runner's clock says {claimed / 1e6:.2f} ms, the judge's {call / 1e6:.2f} ms"
    return ""


def _quartile(values: Sequence[float], which: int) -> float:
    return statistics.quantiles(values, n=4)[which - 1]
