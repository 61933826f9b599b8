"""How a device's memory is used in a measurement, and what two clocks on it may disagree about.

Arithmetic alone, of bytes and nanoseconds: nothing here touches a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

# Twice the cache, so that whatever is left of an input has been written over.
FLUSH_CACHES, LEAST_FLUSH_BYTES = 2, 64 << 20
# A sample takes about this long in the reference, so that what waking a process takes is little.
BURST_SECONDS, LONGEST_BURST = 0.005, 128
LEAST_SETS, MOST_SETS = 2, 4
# Of the device's memory: sets and outputs of one burst, which each of some runners holds twice.
BURST_SHARE = 1 / 48
# What the judge's own work takes longer when a runner was stopped in the middle of something.
LINGERING_SHARE, LINGERING_NS = 1.0, 500_000
# Of the bytes that a call needs, as many as these caches hold are taken to be there already.
CACHES_SPARED = 2


@dataclass(frozen=True)
class Rotation:
    """How many calls make a sample, and how many input sets there are. No set is used twice."""

    burst: int
    sets: int


def flush_bytes(l2_bytes: int) -> int:
    """How much to write between samples so that nothing of them is left in a cache of this size."""
    return max(LEAST_FLUSH_BYTES, FLUSH_CACHES * l2_bytes)


def plan_rotation(
    input_bytes: int, output_bytes: int, call_s: float, memory_bytes: int
) -> Rotation:
    """Sets and calls for an op of these sizes.

    Every call of a burst has a set of its own, which was last touched before the cache was
    flushed, so that all of them find the cache cold.

    Args:
        input_bytes: of one set.
        output_bytes: of one call, all of which are kept until the burst is over.
        call_s: what a call of the reference takes.
        memory_bytes: of the device.
    """
    one = max(1, input_bytes + output_bytes)
    room = int(BURST_SHARE * memory_bytes) // one
    burst = max(1, min(LONGEST_BURST, room, int(BURST_SECONDS / max(call_s, 1e-7))))
    return Rotation(burst, max(LEAST_SETS, burst, min(MOST_SETS, room)))


def bytes_that_must_move(needed: float, l2_bytes: int) -> float:
    """Of the bytes that an answer depends on and consists of, those that no cache can have held."""
    return max(0.0, needed - CACHES_SPARED * l2_bytes)


def lingering(after_ns: Sequence[float], usual_ns: Sequence[float]) -> str:
    """Whether a runner's work goes on when its call is over, in words; empty where it does not.

    Args:
        after_ns: what the same small work of the judge's took after each of the candidate's calls.
        usual_ns: the same after a baseline's.
    """
    if len(after_ns) < 2 or len(usual_ns) < 2:
        return ""
    # A busy machine delays some; only what shows in three of four is the candidate's doing.
    longer = quantiles(after_ns, n=4)[0] - median(usual_ns)
    if longer <= max(LINGERING_SHARE * median(usual_ns), LINGERING_NS):
        return ""
    return f"the device is at work for {longer / 1e6:.2f} ms after the call was over"


def span_mismatch(device_ns: float, wall_ns: float, noise_ns: float) -> str:
    """Whether CUDA's events tell of more time than the judge's wall clock saw pass, in words.

    They may well tell of less: they see one stream, and not how a launch gets there.
    """
    if device_ns <= wall_ns + noise_ns:
        return ""
    return (
        f"CUDA's events say {device_ns / 1e6:.2f} ms, the judge's clock saw {wall_ns / 1e6:.2f} ms "
        "pass"
    )
