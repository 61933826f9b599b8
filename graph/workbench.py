"""What a run works with that no checkpoint can hold: folder, judge, library, crew.

Opened when a node first needs it, so that a run that was interrupted finds the same tools again
after a restart.
"""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from agents.crew import Crew
from agents.playbook.coder import PlaybookCoder
from agents.playbook.debugger import PlaybookDebugger
from agents.playbook.planner import PlaybookPlanner
from agents.playbook.profiler import PlaybookProfiler
from graph.folder import RunFolder
from knowledge.device import resolve
from knowledge.store import Library
from tools.ahead import AheadOfTime
from tools.judge.client import Judge
from tools.judge.wire import JudgeLimits
from tools.task import Task, language_of


class Stopwatch:
    """Seconds of work in this process since the last lap; a run's total is the sum of its laps."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def running(self) -> float:
        """Seconds since the last lap."""
        return time.monotonic() - self._since

    def lap(self) -> float:
        """Seconds since the last lap, and start the next."""
        seconds = self.running()
        self._since += seconds
        return seconds


@dataclass(frozen=True)
class Workbench:
    """The tools of one run; for a device that is not here, what works without it judges."""

    folder: RunFolder
    judge: Judge | AheadOfTime
    library: Library
    crew: Crew
    watch: Stopwatch = field(default_factory=Stopwatch)


def playbook_crew(library: Library) -> Crew:
    """The crew of rules."""
    coder = PlaybookCoder()
    return Crew(PlaybookPlanner(library), coder, PlaybookDebugger(coder), PlaybookProfiler())


class Workbenches:
    """The open workbenches of this process, one a run folder.

    Args:
        library_folder: where the library is kept; None for the user's own.
        crew: replaces the playbook crew, e.g. by a scripted one.
        limits: the judge's deadlines and time for measuring; None for its own.
    """

    def __init__(
        self,
        library_folder: Path | None = None,
        crew: Crew | None = None,
        limits: JudgeLimits | None = None,
    ) -> None:
        self._library_folder = library_folder
        self._crew = crew
        self._limits = limits
        self._open: dict[str, Workbench] = {}
        self._lock = threading.Lock()

    def of(self, run_dir: str, task: Task) -> Workbench:
        """The workbench of a run, opened if it is not."""
        with self._lock:
            if run_dir not in self._open:
                folder = RunFolder(Path(run_dir))
                folder.adopt(task)
                library = Library.open(self._library_folder, for_run=True)
                library.refresh()
                judge = self.judge_of(task, folder)
                self._open[run_dir] = Workbench(
                    folder, judge, library, self._crew or playbook_crew(library)
                )
            return self._open[run_dir]

    def judge_of(self, task: Task, folder: RunFolder) -> Judge | AheadOfTime:
        """The judge of a run, its own unless a subclass knows better."""
        judge = Judge(task, folder.scratch, self._limits)
        device = resolve(task.target, "task: target")
        if device.kind == "cpu":
            return judge
        return AheadOfTime(judge, device, language_of(task, device, "task"))

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
