"""The four roles. Nodes know these Protocols only, so any role can be rules or a model."""

from dataclasses import dataclass
from typing import Protocol

from agents.brief import Brief, Diagnosis, Plan, Planning
from tools.candidate import Candidate
from tools.verdict import Trial


class Planner(Protocol):
    """Decides what to try."""

    def plan(self, brief: Brief) -> Planning:
        """New plans, best first, at most `brief.task.width`; none when nothing is worth trying."""


class Coder(Protocol):
    """Writes kernels."""

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        """The candidate that carries out `plan`."""


class Debugger(Protocol):
    """Mends what the judge rejected."""

    def repair(self, brief: Brief, plan: Plan, trial: Trial) -> tuple[Plan, Candidate, str] | None:
        """A changed plan, its candidate, and what was changed; None when out of ideas."""


class Profiler(Protocol):
    """Reads measurements."""

    def explain(self, brief: Brief, trial: Trial) -> Diagnosis:
        """Which bound a correct, timed trial is at, and what is left."""


@dataclass(frozen=True)
class Crew:
    """Who does the thinking in a run."""

    planner: Planner
    coder: Coder
    debugger: Debugger
    profiler: Profiler
