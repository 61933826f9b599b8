"""Which trials to build on: pure functions of trials and diagnoses. The planner says what to try.

Serial depth is worth more than width, so every strategy names the best trial first.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from agents.brief import Diagnosis
from tools.task import Task
from tools.verdict import Trial

ISLANDS = 3
# After so many trials, the island that is furthest behind goes on from the best of all.
MIGRATION = 6
# How often an island builds on its best rather than on another of its elites.
EXPLOITED = 0.6


class Strategy(Protocol):
    """Chooses parents from everything judged so far."""

    def parents(
        self, trials: Sequence[Trial], diagnoses: Sequence[Diagnosis], width: int
    ) -> tuple[int, ...]:
        """Numbers of the trials to build on, at most `width`, the first one before all."""


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Timed trials, fastest first; the earlier one where two are equal."""
    timed = [(speedup, trial) for trial in trials if (speedup := trial.speedup) is not None]
    return [trial for _, trial in sorted(timed, key=lambda pair: (-pair[0], pair[1].number))]


class Greedy:
    """Builds on the best trial alone."""

    def parents(
        self, trials: Sequence[Trial], diagnoses: Sequence[Diagnosis], width: int
    ) -> tuple[int, ...]:
        """The best one."""
        return tuple(trial.number for trial in ranked(trials)[:1])


class Beam:
    """Builds on the best trial of each of `width` patterns, so that none crowds out the rest."""

    def parents(
        self, trials: Sequence[Trial], diagnoses: Sequence[Diagnosis], width: int
    ) -> tuple[int, ...]:
        """The best of each pattern, at most `width`."""
        best_of: dict[str, Trial] = {}
        for trial in ranked(trials):
            best_of.setdefault(trial.pattern, trial)
        return tuple(trial.number for trial in list(best_of.values())[:width])


class Evolve:
    """Islands, each with a MAP-Elites grid over (bottleneck, pattern).

    A lineage lives on the island of its first trial, so that what is slow at first is not held
    against what has come far. Within an island, the fastest trial of each cell is an elite; it
    builds on its best or, by chance, on another elite. MAP-Elites: Mouret and Clune, 2015.

    Args:
        seed: of what is left to chance; the same trials then give the same parents.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def parents(
        self, trials: Sequence[Trial], diagnoses: Sequence[Diagnosis], width: int
    ) -> tuple[int, ...]:
        """The best of all, then one elite of each island in turn."""
        best = ranked(trials)
        if not best:
            return ()
        # Seeded anew each time: a restart then chooses as the run would have.
        chance = random.Random(f"{self._seed}:{len(trials)}")
        islands = _islands(trials)
        lagging = self._lagging(trials, islands)
        chosen = [best[0].number]
        for island in sorted(islands):
            if island != lagging:
                elites = elites_of(islands[island], diagnoses)
                chosen += [_pick(elites, chance)] if elites else []
        return tuple(dict.fromkeys(chosen))[:width]

    def _lagging(self, trials: Sequence[Trial], islands: dict[int, list[Trial]]) -> int | None:
        """The island whose best is furthest behind, when it is time to migrate; it is left out."""
        if len(islands) < ISLANDS or len(trials) % MIGRATION:
            return None
        return min(islands, key=lambda one: (_best_speedup(islands[one]), one))


def elites_of(trials: Sequence[Trial], diagnoses: Sequence[Diagnosis]) -> list[Trial]:
    """The fastest trial of each (bottleneck, pattern), fastest first."""
    bottlenecks = {one.trial: one.bottleneck for one in diagnoses}
    cells: dict[tuple[str, str], Trial] = {}
    for trial in ranked(trials):
        cells.setdefault((bottlenecks.get(trial.number, "none"), trial.pattern), trial)
    return list(cells.values())


def _islands(trials: Sequence[Trial]) -> dict[int, list[Trial]]:
    """Trials by island: first trials are dealt out in turn, their offspring stays with them."""
    parents = {trial.number: trial.parent for trial in trials}
    dealt: dict[int, int] = {}
    found: dict[int, list[Trial]] = defaultdict(list)
    for trial in sorted(trials, key=lambda one: one.number):
        root = trial.number
        while (parent := parents.get(root)) is not None and parent in parents and parent < root:
            root = parent
        found[dealt.setdefault(root, len(dealt) % ISLANDS)].append(trial)
    return dict(found)


def _best_speedup(trials: Sequence[Trial]) -> float:
    return max((trial.speedup or 0.0 for trial in trials), default=0.0)


def _pick(elites: list[Trial], chance: random.Random) -> int:
    """The island's best, mostly; else another elite."""
    if len(elites) == 1 or chance.random() < EXPLOITED:
        return elites[0].number
    return chance.choice(elites[1:]).number


def strategy_for(task: Task) -> Strategy:
    """The strategy that the task names."""
    match task.strategy:
        case "greedy":
            return Greedy()
        case "beam":
            return Beam()
        case "evolve":
            return Evolve(task.seed)
