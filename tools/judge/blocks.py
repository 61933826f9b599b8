"""Figures from interleaved blocks: ratios with their intervals, noise, and what two clocks say.

A block in which some call had to wait for a processor, because something else ran on the machine,
tells of that and not of the kernel; such blocks are left out as long as enough others remain.
"""

import importlib
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy

from tools.judge import rotation
from tools.judge.lane import Lane, Sample
from tools.verdict import Comparison

LEAST_BLOCKS = 8
# Half the width of an interval at which no more blocks are needed; to rank candidates, of which
# the winner is measured again, less will do.
TIGHT, TIGHT_ENOUGH_TO_RANK = 0.005, 0.01
RESAMPLES = 2000
# Nothing that is called from Python is done sooner.
LEAST_NS = 100.0
# A call waited if its threads stood in line for this share of its time, beyond some microseconds.
WAITED_SHARE, WAITED_NS = 0.1, 100_000
# A candidate that waits this much more often than the baselines does so by its own doing.
OWN_DOING = 0.25
# Copying is not part of an op's time, but work that was put off until then is: what the candidate's
# copy takes over the baseline's by more than this is added to its time.
COPY_SLACK, COPY_SLACK_NS = 0.05, 20_000
# More work than this share of a call, and than so many nanoseconds, is not put off by accident.
# Nor does an honest runner's clock differ from the judge's by more than the share and time below.
DEFERRED_SHARE, DEFERRED_NS = 0.5, 300_000
CLAIM_SHARE, CLAIM_NS = 0.3, 300_000


@dataclass
class Arm:
    """One lane in a measurement, and its samples in order; two per block."""

    name: str
    lane: Lane
    samples: list[Sample] = field(default_factory=list)

    def median(self, part: Callable[[Sample], float]) -> float:
        """The median of one figure over all samples."""
        return statistics.median(part(sample) for sample in self.samples)

    @property
    def calls(self) -> int:
        """How many calls one sample is the mean of."""
        return self.samples[0].calls

    def waited(self) -> list[bool]:
        """For each block, whether a call in it stood in line."""
        waited = [
            s.waited_ns > max(WAITED_SHARE * s.calls * s.call_ns, WAITED_NS) for s in self.samples
        ]
        return [a or b for a, b in zip(waited[::2], waited[1::2], strict=True)]


def quiet(arms: Sequence[Arm]) -> list[Arm]:
    """The same arms with the quiet blocks alone, or with all of them where too few are.

    The first arm is the one under judgement. It cannot choose its blocks by making itself wait.
    """
    mine, *others = [statistics.mean(arm.waited()) for arm in arms]
    kept = _quiet_blocks(arms)
    if mine > statistics.mean(others) + OWN_DOING or len(kept) < LEAST_BLOCKS:
        return list(arms)
    return [
        Arm(arm.name, arm.lane, [arm.samples[2 * block + k] for block in kept for k in (0, 1)])
        for arm in arms
    ]


def enough(arms: Sequence[Arm]) -> bool:
    """Whether there are quiet blocks enough."""
    return len(_quiet_blocks(arms)) >= LEAST_BLOCKS


def _quiet_blocks(arms: Sequence[Arm]) -> list[int]:
    waits = [arm.waited() for arm in arms]
    return [block for block in range(len(waits[0])) if not any(waited[block] for waited in waits)]


def _log_times(arm: Arm, overhead_ns: float) -> list[float]:
    """One log time a block: of the mean of its two calls, so that one can't outweigh the other."""
    times = [max(sample.call_ns - overhead_ns / sample.calls, LEAST_NS) for sample in arm.samples]
    return [math.log((a + b) / 2) for a, b in zip(times[::2], times[1::2], strict=True)]


def all_tight(arms: Sequence[Arm], tight: float = TIGHT) -> bool:
    """Whether every other arm's ratio to the first is known that well."""
    first, *others = quiet(arms)
    for other in others:
        ratios = _log_ratios(other, first, 0.0, 0.0)
        low, high = _interval(ratios)
        if high - low > 2 * tight:
            return False
    return True


def behind(arms: Sequence[Arm], to_beat: float) -> bool:
    """Whether the first arm's speedup over its strongest baseline lies wholly below another's."""
    first, *others = quiet(arms)
    highs = [_interval(_log_ratios(other, first, 0.0, 0.0))[1] for other in others]
    return math.exp(min(highs)) < to_beat


def _log_ratios(over: Arm, under: Arm, overhead_ns: float, deferred_ns: float) -> list[float]:
    tops = _log_times(over, overhead_ns)
    bottoms = _log_times(under, overhead_ns - deferred_ns * under.calls)
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
        candidate_ms=call_ms(candidate, overhead_ns, deferred_ns),
        speedup=math.exp(statistics.median(ratios)),
        low=math.exp(low),
        high=math.exp(high),
        blocks=len(ratios),
    )


def call_ms(arm: Arm, overhead_ns: float, deferred_ns: float = 0.0) -> float:
    """The arm's median call in milliseconds, handshake taken off and put-off work added."""
    call = arm.median(lambda sample: sample.call_ns)
    return max(call - overhead_ns / arm.calls + deferred_ns, LEAST_NS) / 1e6


def log_ratios_of(one: Arm, other: Arm, overhead_ns: float) -> list[float]:
    """The same code against itself: the log of their times' ratio in each block."""
    return _log_ratios(one, other, overhead_ns, 0.0)


def noise_in(ratios: list[float]) -> float:
    """How far from 1 the same code against itself may read: the farther end of the interval.

    `ratios` are of the blocks of one measurement or of several.
    """
    low, high = _interval(ratios)
    return math.expm1(max(abs(low), abs(high)))


def open_against(arms: Sequence[Arm], noise: float) -> bool:
    """Whether it is open if the first arm is faster than every other by more than the noise."""
    first, *others = quiet(arms)
    found = [_interval(_log_ratios(other, first, 0.0, 0.0)) for other in others]
    low, high = min(low for low, _ in found), min(high for _, high in found)
    return math.exp(low) <= 1.0 + noise <= math.exp(high)


def deferred_ns(candidate: Arm, baseline: Arm) -> float:
    """How much longer the candidate's copies take than a baseline's: work left undone, per call."""
    ours = candidate.median(lambda sample: sample.copy_ns)
    theirs = baseline.median(lambda sample: sample.copy_ns)
    return max(0.0, ours - theirs * (1 + COPY_SLACK) - COPY_SLACK_NS / candidate.calls)


def mismatch(candidate: Arm, baseline: Arm, overhead_ns: float) -> str:
    """What the two clocks disagree about, in words; empty where they agree.

    A busy machine delays some calls and some copies; only what shows in three of four is a lie.
    """
    calls = candidate.calls
    call = candidate.median(lambda sample: sample.call_ns)
    usual_copy = baseline.median(lambda sample: sample.copy_ns)
    left = _quartile([sample.copy_ns for sample in candidate.samples], 1) - usual_copy
    # What is left for after half of the calls alone is beyond what this machine delays, too.
    late = _quartile([sample.copy_ns for sample in baseline.samples], 3)
    left = max(left, candidate.median(lambda sample: sample.copy_ns) - late)
    if left > max(DEFERRED_SHARE * max(call, usual_copy), DEFERRED_NS / calls):
        return f"{left / 1e6:.2f} ms of work was left for after a call of {call / 1e6:.2f} ms"
    # On a crowded machine a baseline's reply is late too; it is never early.
    usual = max(0.0, statistics.median(_gaps(baseline, overhead_ns)))
    gaps = _gaps(candidate, overhead_ns)
    claimed = candidate.median(lambda sample: sample.claimed_ns)
    allowed = max(CLAIM_SHARE * max(call, claimed), CLAIM_NS / calls)
    if _quartile(gaps, 1) - usual > allowed or _quartile(gaps, 3) < -allowed:
        return f"the runner's clock says {claimed / 1e6:.2f} ms, the judge's {call / 1e6:.2f} ms"
    return ""


def device_mismatch(candidate: Arm, baseline: Arm, idle_ns: Sequence[float] = ()) -> str:
    """What a device shows besides, in words: time that nobody saw pass, or work without an end.

    `idle_ns` is what the least work took while no candidate was alive. A baseline beside one that
    leaves work behind waits for that as well; it stands in where there is nothing better.
    """
    wall = candidate.median(lambda sample: sample.call_ns)
    device = candidate.median(lambda sample: sample.device_ns)
    noise = max(CLAIM_SHARE * wall, CLAIM_NS / candidate.calls)
    return rotation.span_mismatch(device, wall, noise) or rotation.lingering(
        [sample.after_ns for sample in candidate.samples],
        idle_ns or [sample.after_ns for sample in baseline.samples],
    )


def device_ms(arm: Arm) -> float | None:
    """An arm's median call by CUDA's events, in milliseconds; None where there are none."""
    device = arm.median(lambda sample: sample.device_ns)
    return device / 1e6 if device > 0 else None


def _gaps(arm: Arm, overhead_ns: float) -> list[float]:
    """By how much the judge's clock says more than the runner's own, for each sample's calls."""
    return [s.call_ns - overhead_ns / s.calls - s.claimed_ns for s in arm.samples]


def _quartile(values: Sequence[float], which: int) -> float:
    return statistics.quantiles(values, n=4)[which - 1]
