"""The inputs of a measurement: sets that every arm has bound, and how they are used."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tools.judge.buffers import InputSets
from tools.judge.exam import Exam
from tools.judge.inputs import Perturbation, secret_seed
from tools.judge.oracle import CannotRun, finite_in, own
from tools.reference import tensors_of
from tools.runner import handover

SET_BYTES = 512 << 20
MOST_SETS, LEAST_SETS = 4, 2
# A sample of a quick op is a burst of calls that takes about this long in the reference, on as many
# sets, in no more memory than this.
BURST_SECONDS, LONGEST_BURST, BURST_BYTES = 0.002, 128, 64 << 20
# More than this is not copied within a burst: the copies would take as long as the calls.
BURST_OUTPUT_BYTES = 256 << 10
COPIES = 31
# A longer op hardly notices whether its process was stopped before.
WARM_SECONDS = 0.005
# A new process is slower for a while: pages, code and the processor's clock are still cold.
WARM_UP_SECONDS, WARM_UP_SHARE = 0.2, 20
# Of each measurement's timed calls, as many are checked as the oracle can answer in this time.
CHECK_SECONDS, ORACLE_MULTIPLE = 0.5, 8
LEAST_CHECKED, MOST_CHECKED = 8, 32
FINITE_ENOUGH = 0.9


@dataclass(frozen=True)
class Pool:
    """Input sets that every arm has bound, and how they are used.

    `burst` calls on as many sets make one sample: an op that takes microseconds is timed over
    several calls, each with the `copy_ns` that copying out its results takes (0 where that is not
    part of the sample). `perturbations` give each set new values; they remember what was drawn, and
    so outlast any one measurement. A `warm` op is called untimed before, and a new process for
    `warm_up_s`. Where elements can't change places, or are too few, `redraw` gives other inputs.
    `checked` is how many timed calls the oracle looks at afterwards.
    """

    sets: InputSets
    burst: int
    perturbations: tuple[Perturbation, ...]
    copy_ns: float
    warm: bool
    warm_up_s: float
    redraw: Callable[[], tuple[Any, ...]] | None
    checked: int

    def renew(self, number: int) -> None:
        """Put values that are all new into a set."""
        self.perturbations[number].renew()
        if self.redraw is not None:
            self.sets.redraw(number, self.redraw())

    def touch(self, number: int) -> None:
        """Change a few elements of a set at the last moment."""
        self.perturbations[number].touch()


def draw_pool(exam: Exam, timing_s: float) -> Pool:
    """Fresh sets for one exam's weights, for measurements that take so many seconds."""
    subject = exam.subject
    size = max(1, subject.input_bytes)
    burst = min(LONGEST_BURST, BURST_BYTES // size, int(BURST_SECONDS / subject.quick_s))
    written = sum(tensor.nbytes for tensor in subject.outputs)
    burst = max(1, burst) if written <= BURST_OUTPUT_BYTES else 1
    count = max(LEAST_SETS, burst, min(MOST_SETS, SET_BYTES // size))
    # A device copies results out when the clock has stopped, and has room for more of them.
    planned = subject.site.rotation(size, written, subject.quick_s)
    if planned is not None:
        burst, count = planned.burst, planned.sets

    def draw() -> tuple[Any, ...]:
        return subject.loaded.inputs(secret_seed())

    sets = subject.share([draw() for _ in range(count)])
    elements = sum(tensor.numel() for tensor in subject.outputs)
    fragile = _is_fragile(exam, draw())
    perturbations = tuple(
        Perturbation(bundle.tensors, elements, fragile) for bundle in sets.bundles
    )
    drawn_anew = not all(perturbation.changes for perturbation in perturbations)
    checked = int(CHECK_SECONDS / (ORACLE_MULTIPLE * subject.reference_s))
    return Pool(
        sets=sets,
        burst=burst,
        perturbations=perturbations,
        copy_ns=_copy_ns(subject.owed) if burst > 1 and planned is None else 0.0,
        # While it is called to warm up, it could work on values that no touch will change.
        warm=subject.quick_s < WARM_SECONDS and not drawn_anew,
        warm_up_s=min(WARM_UP_SECONDS, timing_s / WARM_UP_SHARE),
        redraw=draw if drawn_anew else None,
        checked=max(LEAST_CHECKED, min(MOST_CHECKED, checked)),
    )


def _is_fragile(exam: Exam, inputs: tuple[Any, ...]) -> bool:
    """Whether the op, or the sense of its result, depends on the order of inputs' elements."""
    inputs = own(inputs)
    usual = exam.cases[0].truth
    perturbation = Perturbation(tensors_of(inputs), sum(tensor.numel() for tensor in usual.like))
    perturbation.renew()
    perturbation.touch()
    with exam.at_trial():
        if not exam.takes(inputs):
            return True
    try:
        outputs = exam.subject.oracle.run(exam.first.model, inputs)
    except CannotRun:
        return True
    return [tensor.shape for tensor in outputs] != [tensor.shape for tensor in usual.like] or (
        finite_in(outputs) < FINITE_ENOUGH * usual.finite
    )


def _copy_ns(owed: Sequence[handover.Place]) -> float:
    """What copying out the results of one call takes, by the very lines that the runner uses."""
    leaves, places = ([None if one is None else one.clone() for one in owed] for _ in range(2))
    returned: Any = leaves[0] if len(leaves) == 1 else leaves
    ready = handover.Owed(places)
    took = []
    for _ in range(COPIES):
        began = time.perf_counter_ns()
        ready.take(returned)
        took.append(time.perf_counter_ns() - began)
    return statistics.median(took)
