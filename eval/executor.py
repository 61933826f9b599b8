"""Where problems are run: here, one after another, or on a fleet of machines."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from eval.one import Arrangement, run_problem
from eval.problem import Problem
from eval.process import Execute
from eval.rows import Row


class Executor(Protocol):
    """Runs problems, in whatever order and number at a time."""

    def rows(
        self, problems: Sequence[Problem], begin: Callable[[Problem], None]
    ) -> Iterator[tuple[Problem, Row]]:
        """Each problem with its row, as they come to their end.

        Args:
            problems: each is given back once.
            begin: is told of each that starts.
        """
        ...


@dataclass(frozen=True)
class Here:
    """One after another on this machine, which so has nothing else to do.

    Args:
        arrangement: how a problem is run.
        run: how a problem's command is run.
    """

    arrangement: Arrangement
    run: Execute

    def rows(
        self, problems: Sequence[Problem], begin: Callable[[Problem], None]
    ) -> Iterator[tuple[Problem, Row]]:
        """Each problem with its row, in order."""
        for problem in problems:
            begin(problem)
            yield problem, run_problem(problem, self.arrangement, self.run)
