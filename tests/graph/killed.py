"""`python -m tests.graph.killed FOLDER NODE...`: one run, killed in each of the nodes in turn.

Each stretch is a process of its own, forked from this one, which has nothing open and only spares
it the imports. The last one is not killed. Prints how each ended, one number a line.
"""

import os
import signal
import sys
import time
from pathlib import Path

from graph import nodes
from graph.drive import work
from graph.folder import RunFolder
from graph.state import RunInput
from graph.workbench import Thinking, Workbench, Workbenches
from tests.graph.conftest import LIMITS, RIGHT, WRONG
from tests.graph.speaking import price, speaking_crew
from tools.task import Budget, InputSpec, Task

ROLES = {"plan": "planner", "code": "coder", "debug": "debugger", "profile": "profiler"}
REQUESTS = {
    "prepare": "survey",
    "compile": "build",
    "verify": "verify",
    "measure": "measure",
    "confirm": "confirm",
}


def die(*ignored: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class DeadlyJudge:
    """The run's judge, but for one request, in which the process is killed."""

    def __init__(self, judge: object, request: str) -> None:
        self._judge = judge
        self._request = request

    def __getattr__(self, name: str) -> object:
        return die if name == self._request else getattr(self._judge, name)


class DeadlyBenches(Workbenches):
    """Workbenches whose judge kills the process."""

    request = ""

    def of(self, run_dir: str, task: Task) -> Workbench:
        bench = super().of(run_dir, task)
        if self.request:
            object.__setattr__(bench, "judge", DeadlyJudge(bench.judge, self.request))
        return bench


def stretch(folder: RunFolder, task: Task, entry: RunInput | None, node: str) -> None:
    """Work on the run until its end or until the process is killed in `node`."""
    base = folder.path.parent
    mortal = ROLES.get(node)
    crew = speaking_crew(
        base / "paid", (WRONG, RIGHT), after=lambda role, plan: die() if role == mortal else None
    )
    benches = DeadlyBenches(base / "library", crew, LIMITS, thinking=Thinking(price_of=price))
    benches.request = REQUESTS.get(node, "")
    if node == "select":
        nodes.strategy_for = die  # type: ignore[assignment]
    if node == "conclude":
        nodes.remember = die
    work(folder, task, entry, quiet=True, benches=benches)


def main() -> None:
    base, killed_in = Path(sys.argv[1]), sys.argv[2:]
    task = Task(
        name="relu",
        op="torch.relu",
        inputs=(InputSpec(shape=(64, 64)),),
        width=1,
        budget=Budget(trials=4),
    )
    folder = RunFolder.create(base, task)
    entry: RunInput | None = RunInput(task=task, run_dir=str(folder.path))
    for node in (*killed_in, ""):
        child = os.fork()
        if child == 0:
            stretch(folder, task, entry, node)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{node or 'end'} {os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
        entry = None


if __name__ == "__main__":
    main()
