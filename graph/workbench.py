"""What a run works with that no checkpoint can hold: folder, judge, library, crew.

Opened when a node first needs it, so that a run that was interrupted finds the same tools again
after a restart.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args

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
from agents.without import crew_without, library_for
from graph.folder import RunFolder
from graph.journal import Answers, PriceOf, RunJournal, unpriced
from graph.meter import Lane, Meter, MeteredJudge, Queue
from knowledge.catalogue import default_place, home_folder
from knowledge.device import Device, present_gpu
from knowledge.reach import is_address
from knowledge.store import Library
from tools.ahead import AheadOfTime
from tools.judge.client import Judge
from tools.judge.panel import Panel
from tools.judge.turns import turns_of_process
from tools.judge.wire import JudgeLimits
from tools.task import PLAYBOOK, Budget, Task, device_of, language_of

CrewMaker = Callable[[Task, Library, Journal], Crew]
CrewFor = Callable[[Task, Library, Bench, Journal], Crew]
JournalMaker = Callable[[RunFolder, Budget, PriceOf, Answers | None], RunJournal]


class Thinking(NamedTuple):
    """Where a run's thinking comes from; a replay finds it on the disk.

    `price_of` says what calls to models cost, None for what the task's price list says; `crew_of`
    makes the crew that a task asks for, None for the usual one.
    """

    price_of: PriceOf | None = None
    journal_of: JournalMaker = RunJournal
    crew_of: CrewFor | None = None


@dataclass(frozen=True)
class Workbench:
    """The tools of one run; for a device that is not here, what works without it judges.

    `instruments`: the profiler's ladder is climbed for trials that lead. `quiet` is held by whoever
    measures and by whoever profiles, so that neither disturbs the other.
    """

    folder: RunFolder
    judge: MeteredJudge
    library: Library
    crew: Crew
    journal: RunJournal
    meter: Meter
    models: Mapping[Role, str] = field(default_factory=dict)
    price_of: PriceOf = unpriced
    instruments: bool = False
    quiet: AbstractContextManager[object] = field(default_factory=threading.Lock)

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
    where = str(library or default_place())
    # A library on a server has no folder here.
    place = home_folder() if is_address(where) else Path(where).expanduser().resolve()
    return place.with_name(f"{place.name}-answers")


def _is_here(device: Device) -> bool:
    """Whether what is for this device can be run and timed."""
    return device.kind == "cpu" or device == present_gpu()


USUAL = Thinking()


class Stopping(Exception):
    """The run is being stopped: no further node begins. The message may say why, as a clause."""


class Workbenches:
    """The open workbenches of this process, one a run folder.

    Args:
        library_folder: where the library is kept; None for the user's own.
        crew: replaces the task's crew, e.g. by a scripted one, or makes one that has a journal.
        limits: the judge's deadlines and time for measuring; None for its own.
        thinking: where prices, the journal and the task's crew come from.
        instruments: climb the profiler's ladder, which takes seconds, for trials that lead.
        lane: held by whoever uses the device, where other runs of this process may want it too.
    """

    def __init__(
        self,
        library_folder: Path | None = None,
        crew: Crew | CrewMaker | None = None,
        limits: JudgeLimits | None = None,
        *,
        thinking: Thinking = USUAL,
        instruments: bool = False,
        lane: "threading.RLock | None" = None,
    ) -> None:
        self._instruments = instruments
        self._lane = lane
        self._library_folder = library_folder
        self._crew = crew
        self._limits = limits
        self._thinking = thinking
        self._open: dict[str, Workbench] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def stop(self) -> None:
        """Let no further node begin: attempts that run in threads of their own end with theirs."""
        self._stopping = True

    def abandon(self) -> None:
        """Stop now: judges are ended while they work, and nothing is said of what they judged."""
        self.stop()
        # Without the lock, which is held while one is opened: whoever opens looks at `_stopping`
        # once it is there.
        for bench in tuple(self._open.values()):
            bench.judge.abandon()

    def check(self, task: Task, where: str) -> None:
        """Complain of what the task's models need and don't have, before anything is made.

        Raises:
            BadInput: a package or a key is missing.
        """
        if self.usual:
            check_models(task, where)

    @property
    def usual(self) -> bool:
        """Whether the crew is the one that a task asks for."""
        return self._crew is None and self._thinking.crew_of is None

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
            if self._stopping:
                raise Stopping
            return self._open[run_dir]

    def judge_of(self, task: Task, folder: RunFolder) -> Judge | AheadOfTime | Panel:
        """The judge of a run, its own unless a subclass knows better."""
        if len(task.workloads) > 1:
            here = _is_here(device_of(task, "task: target"))
            return Panel(task, folder.scratch, self._judge_in, on_device=here)
        return self._judge_in(task, folder.scratch)

    def _judge_in(self, task: Task, scratch: Path) -> Judge | AheadOfTime:
        device = device_of(task, "task: target")
        if _is_here(device):
            # What `auto` means is decided once: the judge is told.
            told = task.model_copy(update={"target": device.kind})
            return Judge(told, scratch, self._limits)
        judge = Judge(task, scratch, self._limits)
        return AheadOfTime(judge, device, language_of(task, device, "task"))

    def _opened(self, folder: RunFolder, task: Task) -> Workbench:
        folder.adopt(task)
        meter = Meter(folder.spent)
        library = library_for(task.without).open(self._library_folder, for_run=True)
        library.refresh()
        answers = Answers(answers_beside(self._library_folder)) if task.cache else None
        price_of = self._thinking.price_of or Prices.load(task.prices).usd
        journal = self._thinking.journal_of(folder, task.budget, price_of, answers)
        lane = None if self._lane is None else Lane(self._lane, meter)
        turns = turns_of_process()
        queue = None
        if turns is not None:
            on_cpu = device_of(task, "task: target").kind == "cpu"
            queue = Queue(turns, meter, on_cpu=on_cpu)
        judge = MeteredJudge(self.judge_of(task, folder), meter, lane, queue)
        crew = self._crew or (self._thinking.crew_of or crew_for)(task, library, judge, journal)
        return Workbench(
            folder=folder,
            judge=judge,
            library=library,
            crew=crew_without(
                crew if isinstance(crew, Crew) else crew(task, library, journal), task.without
            ),
            journal=journal,
            meter=meter,
            models=models_of(task),
            price_of=price_of,
            instruments=self._instruments and "profiler" not in task.without,
            quiet=lane or threading.Lock(),
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
