"""What stands in the place of a part that a task does `without`: it does its job, and says nothing.

A run without a part, beside the same run with it, says what the part is worth (`eval.ablate`). None
of these is ever used unless the task asks for it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from agents.brief import Brief, Diagnosis, Plan
from agents.crew import Crew
from agents.playbook.profiler import PlaybookProfiler
from knowledge.experience import Lesson
from knowledge.experience.memory import Memory
from knowledge.experience.tried import Tried
from knowledge.passage import Narrowing, Passage
from knowledge.store import Library
from tools.candidate import Candidate
from tools.task import Part
from tools.verdict import Trial


class GivesUp:
    """A debugger that mends nothing: a rejected candidate ends its attempt."""

    def repair(self, brief: Brief, plan: Plan, trial: Trial) -> tuple[Plan, Candidate, str] | None:
        """None."""
        return None


class FiguresAlone:
    """A profiler that gives the judge's figures, and neither a reading of them nor a next move."""

    def __init__(self) -> None:
        self._rules = PlaybookProfiler()

    def explain(self, brief: Brief, trial: Trial) -> Diagnosis:
        """Headroom and figures; `none` for a bottleneck.

        Raises:
            ValueError: the trial was not timed, so there is nothing to explain.
        """
        read = self._rules.explain(brief, _without_readings(trial))
        return read.model_copy(update={"bottleneck": "none", "cause": "", "moves": ()})


def _without_readings(trial: Trial) -> Trial:
    """The trial as the judge's clock left it: what instruments read belongs to the diagnosis."""
    if trial.profile is None:
        return trial
    profile = trial.profile.model_copy(update={"readings": None})
    return trial.model_copy(update={"profile": profile})


class Pageless(Library):
    """A library in which no page is found. Patterns are code, and stay."""

    def search(self, query: str, k: int = 5, **narrowed: Unpack[Narrowing]) -> list[Passage]:
        """Nothing."""
        return []


class NoMemory(Memory):
    """Knows of no earlier run, and keeps none."""

    def keep(self, trials: Sequence[Tried]) -> None:
        """Nothing is kept."""

    def like(self, signature: str, *, device: str = "", architecture: str = "") -> list[Tried]:
        """Nothing."""
        return []


class Forgetful(Library):
    """A library that neither tells what earlier runs learned nor keeps what this one does."""

    @classmethod
    def memory_in(cls, home: Path) -> Memory:
        """A memory of nothing."""
        return NoMemory(home)

    def remember(self, lesson: Lesson) -> None:
        """Nothing is kept."""

    def lessons_like(
        self, signature: str, device: str, k: int = 5, *, unconfirmed: bool = False
    ) -> list[Lesson]:
        """Nothing."""
        return []


class Blank(Pageless, Forgetful):
    """Neither pages nor experience."""


def library_for(without: Sequence[Part]) -> type[Library]:
    """The kind of library that a task's run works with."""
    match "library" in without, "experience" in without:
        case True, True:
            return Blank
        case True, False:
            return Pageless
        case False, True:
            return Forgetful
        case _:
            return Library


def crew_without(crew: Crew, without: Sequence[Part]) -> Crew:
    """The crew, with whoever the task does without replaced by one that says nothing."""
    if "debugger" in without:
        crew = dataclasses.replace(crew, debugger=GivesUp())
    if "profiler" in without:
        crew = dataclasses.replace(crew, profiler=FiguresAlone())
    return crew
