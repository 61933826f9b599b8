"""What a run works with that no checkpoint can hold: folder, judge, library, crew.

Opened when a node first needs it, so that a run that was interrupted finds the same tools again
after a restart.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from agents.crew import Crew
from agents.llm.crew import model_crew
from agents.llm.exchange import Journal, Role
from agents.llm.models import check_models, recorded_models
from agents.llm.prices import Prices
from agents.llm.tools import Bench
from agents.playbook.coder import PlaybookCoder
from agents.playbook.debugger import PlaybookDebugger
from agents.playbook.planner import PlaybookPlanner
from agents.playbook.profiler import PlaybookProfiler
from graph.folder import RunFolder
from graph.journal import Answers, PriceOf, RunJournal, unpriced
from graph.meter import Meter, MeteredJudge
from knowledge.catalogue import default_place, home_folder
from knowledge.device import resolve
from knowledge.store import Library
from tools.ahead import AheadOfTime
from tools.judge.client import Judge
from tools.judge.wire import JudgeLimits
from tools.task import PLAYBOOK, Budget, Task, language_of

CrewMaker = Callable[[Task, Library, Journal], Crew]
CrewFor = Callable[[Task, Library, Bench, Journal], Crew]
JournalMaker = Callable[[RunFolder, Budget, PriceOf, Answers | None], RunJournal]


@dataclass(frozen=True)
class Workbench:
    """The tools of one run; for a device that is not here, what works without it judges."""

    folder: RunFolder
    judge: MeteredJudge
    library: Library
    crew: Crew
    journal: RunJournal
    meter: Meter
    models: Mapping[Role, str] = field(default_factory=dict)
    price_of: PriceOf = unpriced

    def time_spent(self, budget: Budget) -> str:
        """Which budget of time is spent by now, as a clause; empty while none is."""
        if self.meter.wall_seconds >= budget.minutes * 60:
            return f"the budget of {budget.minutes:g} minutes is spent"
        cap = budget.device_seconds
        if cap is not None and self.meter.device_seconds >= cap:
            return f"the budget of {cap:g} seconds on the device is spent"
        return ""

    def complaints(self) -> tuple[str, ...]:
        """Sentences of library and journal that a person should read, each once."""
        return (*self.library.memory.complaints(), *self.journal.complaints())


def playbook_crew(library: Library) -> Crew:
    """The crew of rules."""
    coder = PlaybookCoder()
    return Crew(PlaybookPlanner(library), coder, PlaybookDebugger(coder), PlaybookProfiler())


def crew_for(task: Task, library: Library, judge: Bench, journal: Journal) -> Crew:
    """The crew that a task asks for: rules, models, or both.

    Raises:
        BadInput: a model's package or key is missing.
    """
    if task.way_of_thinking == "playbook":
        return playbook_crew(library)
    return model_crew(task, library, judge, journal)


def replayed_crew(task: Task, library: Library, judge: Bench, journal: Journal) -> Crew:
    """The same crew where all answers are known: it needs no package of a provider and no key."""
    if task.way_of_thinking == "playbook":
        return playbook_crew(library)
    return model_crew(task, library, judge, journal, recorded_models(task))


def models_of(task: Task) -> dict[Role, str]:
    """Which model thinks in which role; roles of the playbook are not in it."""
    if task.way_of_thinking == "playbook":
        return {}
    by_role = {role: task.model.of(role) for role in get_args(Role)}
    return {role: model for role, model in by_role.items() if model != PLAYBOOK}


def answers_beside(library: Path | None) -> Path:
    """Where answers that runs share are kept: a folder beside the library."""
    place = library or Path(default_place())
    # A library on a server has no folder here.
    place = home_folder() if "://" in str(place) else place
    return place.with_name(f"{place.name}-answers")


def _judge_of(task: Task, folder: RunFolder, limits: JudgeLimits | None) -> Judge | AheadOfTime:
    judge = Judge(task, folder.scratch, limits)
    device = resolve(task.target, "task: target")
    if device.kind == "cpu":
        return judge
    return AheadOfTime(judge, device, language_of(task, device, "task"))


class Stopping(Exception):
    """The run is being stopped: no further node begins."""


class Workbenches:
    """The open workbenches of this process, one a run folder.

    Args:
        library_folder: where the library is kept; None for the user's own.
        crew: replaces the task's crew, e.g. by a scripted one, or makes one that has a journal.
        limits: the judge's deadlines and time for measuring; None for its own.
        price_of: what calls to models cost; None for what the task's price list says.
        journal_of: makes a run's journal; None for the usual one.
        crew_of: makes the crew that a task asks for.
    """

    def __init__(
        self,
        library_folder: Path | None = None,
        crew: Crew | CrewMaker | None = None,
        limits: JudgeLimits | None = None,
        *,
        price_of: PriceOf | None = None,
        journal_of: JournalMaker | None = None,
        crew_of: CrewFor = crew_for,
    ) -> None:
        self._library_folder = library_folder
        self._crew = crew
        self._limits = limits
        self._price_of = price_of
        self._journal_of = journal_of or RunJournal
        self._crew_of = crew_of
        self._open: dict[str, Workbench] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def stop(self) -> None:
        """Let no further node begin: attempts that run in threads of their own end with theirs."""
        self._stopping = True

    def check(self, task: Task, where: str) -> None:
        """Complain of what the task's models need and don't have, before anything is made.

        Raises:
            BadInput: a package or a key is missing.
        """
        if self._crew is None and self._crew_of is crew_for:
            check_models(task, where)

    def of(self, run_dir: str, task: Task) -> Workbench:
        """The workbench of a run, opened if it is not.

        Raises:
            Stopping: the run is being stopped.
        """
        if self._stopping:
            raise Stopping
        with self._lock:
            if run_dir not in self._open:
                self._open[run_dir] = self._opened(RunFolder(Path(run_dir)), task)
            return self._open[run_dir]

    def _opened(self, folder: RunFolder, task: Task) -> Workbench:
        folder.adopt(task)
        meter = Meter(folder.spent)
        library = Library.open(self._library_folder, for_run=True)
        library.refresh()
        answers = Answers(answers_beside(self._library_folder)) if task.cache else None
        price_of = self._price_of or Prices.load(task.prices).usd
        journal = self._journal_of(folder, task.budget, price_of, answers)
        judge = MeteredJudge(_judge_of(task, folder, self._limits), meter)
        crew = self._crew or self._crew_of(task, library, judge, journal)
        return Workbench(
            folder=folder,
            judge=judge,
            library=library,
            crew=crew if isinstance(crew, Crew) else crew(task, library, journal),
            journal=journal,
            meter=meter,
            models=models_of(task),
            price_of=price_of,
        )

    def close(self, run_dir: str) -> None:
        """End a run's judge with everything it started. Closing twice is allowed."""
        with self._lock:
            bench = self._open.pop(run_dir, None)
        if bench is not None:
            bench.judge.close()

    def close_all(self) -> None:
        """Close every run's."""
        for run_dir in list(self._open):
            self.close(run_dir)
