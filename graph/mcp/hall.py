"""What one server holds: its runs, its guests, the library, and the one lane to the device."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from graph.background import Background
from graph.folder import RunFolder
from graph.guest import Desk, GuestAudience, guest_crew
from graph.state import RunInput
from graph.workbench import CrewMaker, Workbenches
from knowledge.errors import BadInput
from knowledge.passage import Passage
from knowledge.store import Library
from tools.judge.wire import JudgeLimits
from tools.task import Task

Found = TypeVar("Found")

# A guest's run keeps a judge, with torch in it, while the guest thinks.
MOST_GUESTS = 8
ERRANDS = 16
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Guest:
    """A run whose kernels a caller writes."""

    run: Background
    desk: Desk

    @property
    def name(self) -> str:
        """What callers know it by: the run's id."""
        return self.run.folder.path.name


@dataclass(frozen=True)
class Settings:
    """What a server is started with.

    `base` is where relative paths of callers start, `library` the library's folder, None for the
    user's own; `idle_seconds` is how long a guest may think; `limits` are the judge's.
    """

    runs: Path
    base: Path
    library: Path | None = None
    idle_seconds: float = 1800.0
    limits: JudgeLimits | None = None


@dataclass
class Hall:
    """The server's state; thread-safe, to be closed."""

    settings: Settings
    lane: "threading.RLock" = field(default_factory=threading.RLock)
    pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(ERRANDS, thread_name_prefix="errand")
    )

    def __post_init__(self) -> None:
        self._guests: dict[str, Guest] = {}
        self._running: set[Background] = set()
        self._errands: dict[Future[Any], Callable[[], None]] = {}
        self._library: Library | None = None
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._closed = False

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.settings.runs

    @property
    def base(self) -> Path:
        """Where relative paths of callers start."""
        return self.settings.base

    def benches(self, crew: CrewMaker | None = None) -> Workbenches:
        """The tools of one run, which shares the lane with all others."""
        given = self.settings
        return Workbenches(given.library, crew, given.limits, instruments=True, lane=self.lane)

    def optimise(self, task: Task, resume: RunFolder | None = None) -> Background:
        """Begin a run of the task's own crew, or go on with one."""
        folder = resume or RunFolder.create(self.runs, task)
        return self._begin(Background(folder, task, _entry(folder, task, resume), self.benches()))

    def welcome(self, task: Task, rules_first: int, resume: RunFolder | None = None) -> Guest:
        """Begin a run whose kernels the caller writes, or go on with one.

        Raises:
            BadInput: there are too many already, or this one is still open.
        """
        with self._lock:
            if sum(not one.run.ended.done() for one in self._guests.values()) >= MOST_GUESTS:
                raise BadInput(
                    "start_task", f"{MOST_GUESTS} tasks are open already.", "Finish one of them."
                )
        folder = resume or RunFolder.create(self.runs, task)
        desk = Desk(self.settings.idle_seconds)
        benches = self.benches(
            lambda _task, library, _journal: guest_crew(desk, folder, library, rules_first)
        )
        audience = GuestAudience(desk, folder, task, benches)
        run = Background(folder, task, _entry(folder, task, resume), benches, audience)
        run.ended.add_done_callback(lambda _: desk.close())
        guest = Guest(run, desk)
        with self._lock:
            earlier = self._guests.get(guest.name)
            if earlier is not None and not earlier.run.ended.done():
                raise BadInput(
                    f"task {guest.name}", "is open still.", "Hand in the next kernel, or finish it."
                )
            self._guests[guest.name] = guest
        self._begin(run)
        return guest

    def guest(self, name: str) -> Guest:
        """The guest by the name of its run.

        Raises:
            BadInput: there is none.
        """
        with self._lock:
            guest = self._guests.get(name)
            known = [one.name for one in self._guests.values() if not one.run.ended.done()]
        if guest is None:
            raise BadInput(
                f"task {name[:80]!r}",
                "is not open here.",
                f"Open: {', '.join(known) or 'none'}. start_task opens one, and with `resume` "
                "goes on with one that stopped.",
            )
        return guest

    def forget(self, guest: Guest) -> None:
        """Its run is over, and its caller has heard so."""
        with self._lock:
            self._guests.pop(guest.name, None)

    def reopened(self, name: str) -> tuple[RunFolder, Task]:
        """A run of this server's folder, by its id or by where it lies.

        Raises:
            BadInput: there is none.
        """
        lies_here = Path(name).is_absolute() and Path(name).parent == self.runs.resolve()
        path = self.run_path(Path(name).name if lies_here else name)
        if path is None:
            mend = f"Runs lie in {self.runs}, and kernelwright://runs lists them."
            raise BadInput(f"resume {name[:80]!r}", "is no run.", mend)
        return RunFolder.reopen(path)

    def run_path(self, name: str) -> Path | None:
        """A run's folder by its id; None unless it is a folder right under that of all runs."""
        names = {path.name: path for path in self.runs.glob("*") if (path / "task.yaml").is_file()}
        return names.get(name)

    def search(self, query: str, k: int, **narrowed: str | None) -> list[Passage]:
        """Ask the library; it is opened, and brought up to date, when it is asked first."""
        return self.with_library(lambda library: library.search(query, k, **narrowed))

    def with_library(self, ask: Callable[[Library], Found]) -> Found:
        """Have something done with the library, by one thread at a time."""
        with self._asking:
            if self._library is None:
                library = Library.open(self.settings.library)
                library.refresh()
                self._library = library
            return ask(self._library)

    def send(self, work: Callable[[], Found], abandon: Callable[[], None]) -> "Future[Found]":
        """Have something done on a thread of the pool; the hall's end has it abandoned.

        Args:
            work: what is done.
            abandon: makes `work` end soon, whatever it does; called from another thread.
        """
        with self._lock:
            if self._closed:
                raise BadInput("server", "is shutting down.")
            errand = self.pool.submit(work)
            self._errands[errand] = abandon
        errand.add_done_callback(self._forget_errand)
        return errand

    def _forget_errand(self, errand: "Future[Any]") -> None:
        with self._lock:
            self._errands.pop(errand, None)

    def _begin(self, run: Background) -> Background:
        with self._lock:
            if self._closed:
                raise BadInput("server", "is shutting down.")
            self._running.add(run)
        run.ended.add_done_callback(lambda _: self._end(run))
        return run.start()

    def _end(self, run: Background) -> None:
        with self._lock:
            self._running.discard(run)

    def close(self) -> None:
        """Stop every run and errand with its processes; what was finished can be resumed."""
        with self._lock:
            self._closed = True
            running, guests = tuple(self._running), tuple(self._guests.values())
            errands = dict(self._errands)
        for guest in guests:
            guest.desk.leave("the server was shut down")
        for run in running:
            run.stop()
        for abandon in errands.values():
            abandon()
        for run in running:
            run.join(STOP_SECONDS)
        # Those that had no thread yet get one, and find at once that they were abandoned.
        wait(errands, STOP_SECONDS)
        self.pool.shutdown(wait=False, cancel_futures=True)


def _entry(folder: RunFolder, task: Task, resume: RunFolder | None) -> RunInput | None:
    return RunInput(task=task, run_dir=str(folder.path)) if resume is None else None
