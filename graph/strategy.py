"""Which trials to build on: pure functions of the trials; the planner decides what to try."""

from typing import Protocol

from tools.task import Task
from tools.verdict import Trial


class Strategy(Protocol):
    """Chooses parents from everything judged so far."""

    def parents(self, trials: list[Trial], width: int) -> tuple[int, ...]:
        """Numbers of the trials to build on, best first."""


def ranked(trials: list[Trial]) -> list[Trial]:
    """Timed trials, fastest first; the earlier one where two are equal."""
    timed = [(speedup, trial) for trial in trials if (speedup := trial.speedup) is not None]
    return [trial for _, trial in sorted(timed, key=lambda pair: (-pair[0], pair[1].number))]


class Greedy:
    """Builds on the best trial alone."""

    def parents(self, trials: list[Trial], width: int) -> tuple[int, ...]:
        """The best one."""
        return tuple(trial.number for trial in ranked(trials)[:1])


class Beam:
    """Builds on the best trial of each of `width` patterns, so that none crowds out the rest."""

    def parents(self, trials: list[Trial], width: int) -> tuple[int, ...]:
        """The best of each pattern, at most `width`."""
        best_of: dict[str, Trial] = {}
        for trial in ranked(trials):
            best_of.setdefault(trial.pattern, trial)
        return tuple(trial.number for trial in list(best_of.values())[:width])


def strategy_for(task: Task) -> Strategy:
    """The strategy that the task names."""
    match task.strategy:
        case "greedy":
            return Greedy()
        case "beam":
            return Beam()
