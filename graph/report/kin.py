"""Which trial came of which, and the tree of a run's attempts laid out in rows.

The playbook plans each trial from the reference, by its steps; such a trial has no parent. It then
stands beside the earlier one whose steps are nearest, which is what a reader compares it with.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from graph.record import BASELINE_PLAN, RunRecord
from knowledge.pattern import Parameter, Step
from tools.verdict import Trial

# A pattern more or less weighs as much as so many settings.
PATTERN = 10


class Base(NamedTuple):
    """The trial that another is held against; `recorded` if it was made from it."""

    number: int
    recorded: bool


Bases = Mapping[int, Base | None]
_Settings = dict[tuple[str, str], dict[str, Parameter]]


def bases_of(record: RunRecord) -> Bases:
    """For each trial its parent, else the earlier one with the nearest steps, else None.

    Of equally near ones it is the fastest, then the first.
    """
    known = {trial.number for trial in record.trials}
    plans = {plan.id: plan for plan in record.plans if plan.id != BASELINE_PLAN}
    settings = {
        trial.number: _settings(plans[trial.plan].steps if trial.plan in plans else ())
        for trial in record.trials
    }
    return {trial.number: _base(trial, record.trials, known, settings) for trial in record.trials}


def _base(
    trial: Trial, trials: tuple[Trial, ...], known: set[int], settings: dict[int, _Settings]
) -> Base | None:
    if trial.parent in known and trial.parent is not None and trial.parent < trial.number:
        return Base(trial.parent, recorded=True)
    mine = settings[trial.number]
    near = [
        (_distance(mine, settings[other.number]), -(other.speedup or 0.0), other.number)
        for other in trials
        if other.number < trial.number and mine.keys() & settings[other.number].keys()
    ]
    return Base(min(near)[2], recorded=False) if near else None


def _settings(steps: tuple[Step, ...]) -> _Settings:
    """Steps by part and pattern."""
    return {(step.part, step.pattern): dict(step.parameters) for step in steps}


def _distance(mine: _Settings, theirs: _Settings) -> int:
    alike = mine.keys() & theirs.keys()
    others = len(mine.keys() ^ theirs.keys())
    settings = sum(
        mine[key].get(name) != theirs[key].get(name)
        for key in alike
        for name in mine[key].keys() | theirs[key].keys()
    )
    return PATTERN * others + settings


def lineage(bases: Bases, number: int) -> list[int]:
    """The trials from the first to this one, each the base of the next."""
    found = [number]
    while (base := bases[found[-1]]) is not None:
        found.append(base.number)
    return found[::-1]


def among(bases: Bases, kept: set[int]) -> Bases:
    """Some trials alone, each below the nearest one of them that it came of."""
    found: dict[int, Base | None] = {}
    for number in sorted(kept):
        base = bases[number]
        while base is not None and base.number not in kept:
            base = bases[base.number]
        found[number] = base
    return found


class Row(NamedTuple):
    """One row of the tree: the reference (number 0) or a trial, and the lines that meet there.

    Lanes count from 0 at the left. `through` are those of lines that only pass by; `branch` is the
    lane that the row's own line turns off from; `up` and `down` say whether that line comes from
    the row above, or goes on below.
    """

    number: int
    lane: int
    through: tuple[int, ...]
    branch: int | None
    up: bool
    down: bool


def tree(bases: Bases, leader: int | None) -> list[Row]:
    """The reference and every trial, each below what it came of.

    The line that ends in `leader` stays in the first lane, from top to bottom; what was tried
    beside it turns off to the right. So the number of lanes grows with the logarithm of the trials.
    """
    children: dict[int, list[int]] = {}
    for number, base in bases.items():
        children.setdefault(base.number if base else 0, []).append(number)
    path = set(lineage(bases, leader)) if leader is not None else set()
    return list(_lay(0, 0, (), None, (children, path)))


def _lay(
    number: int,
    lane: int,
    through: tuple[int, ...],
    branch: int | None,
    given: tuple[dict[int, list[int]], set[int]],
) -> Iterator[Row]:
    children, path = given
    up = False
    while True:
        below = children.get(number, [])
        yield Row(number, lane, through, branch, up, bool(below))
        if not below:
            return
        # What leads stays in this lane; otherwise the largest branch does, so that lanes stay few.
        main = max(below, key=lambda one: (one in path, _size(one, children), -one))
        for side in below:
            if side != main:
                yield from _lay(side, lane + 1, (*through, lane), lane, given)
        number, branch, up = main, None, True


def _size(number: int, children: dict[int, list[int]]) -> int:
    """How many trials came of one, itself included."""
    left, count = [number], 0
    while left:
        count += 1
        left += children.get(left.pop(), [])
    return count
