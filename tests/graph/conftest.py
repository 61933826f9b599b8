"""A scripted crew in the real graph, with the real judge, on an op small enough for a test."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.brief import Brief, Diagnosis, Plan, Planning
from agents.crew import Crew
from agents.playbook.profiler import PlaybookProfiler
from graph.build import build_graph
from graph.folder import RunFolder
from graph.record import RunRecord
from graph.state import RunInput
from graph.summary import record_of
from graph.workbench import Workbenches
from knowledge.store import Library
from tools.candidate import Candidate
from tools.judge.client import Judge
from tools.judge.wire import JudgeLimits
from tools.task import Budget, InputSpec, Task
from tools.verdict import Trial

LIMITS = JudgeLimits(
    call_s=10, first_call_s=10, load_s=30, compile_s=120, preparation_s=1, timing_s=0.3
)
HEADER = "import torch\n\nclass ModelNew(torch.nn.Module):\n    def forward(self, x0):\n        "
RIGHT = HEADER + "return x0.clamp(min=0.0)\n"
WRONG = HEADER + "return x0 * 0.5\n"
BROKEN = HEADER + "return ((\n"
# A plan that the coder finds no way to write.
UNWRITABLE = ""
RAISING = HEADER + "raise RuntimeError('boom')\n"


NewRuns = Callable[[], "Runs"]


class ScriptedCrew:
    """Plans that are names of sources; a rejected one is mended by the next source of its list."""

    def __init__(self, *attempts: tuple[str, ...]) -> None:
        self.attempts = attempts

    def plan(self, brief: Brief) -> Planning:
        left = range(len(brief.plans), len(self.attempts))
        return Planning(plans=tuple(self._plan(i) for i in left[: brief.task.width]))

    def _plan(self, number: int) -> Plan:
        return Plan(
            id=f"p{number + 1}",
            title=f"attempt {number + 1}",
            steps=(),
            expected_speedup=2.0,
            arithmetic="",
        )

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        source = self._sources(plan)[0]
        if source == UNWRITABLE:
            raise ValueError("there is nothing to fuse")
        return Candidate(source=source, backend="torch")

    def repair(self, brief: Brief, plan: Plan, trial: Trial) -> tuple[Plan, Candidate, str] | None:
        sources = self._sources(plan)[trial.repair + 1 :]
        if not sources:
            return None
        return plan, Candidate(source=sources[0], backend="torch"), "the next one of the script"

    def explain(self, brief: Brief, trial: Trial) -> Diagnosis:
        return PlaybookProfiler().explain(brief, trial)

    def _sources(self, plan: Plan) -> tuple[str, ...]:
        return self.attempts[int(plan.id.partition("r")[0][1:]) - 1]


RELU = {"name": "relu", "op": "torch.relu", "inputs": (InputSpec(shape=(64, 64)),)}


class LastingJudge(Judge):
    """A judge that outlasts the runs which it works for: it is prepared once for all of them."""

    def close(self) -> None:
        """Left to work for the next run."""

    def abandon(self) -> None:
        """Left to work too."""

    def end(self) -> None:
        super().close()


class SharedBenches(Workbenches):
    """Workbenches of runs on relu, all with one judge."""

    def __init__(self, library: Path, crew: Crew, judge: Judge) -> None:
        super().__init__(library, crew)
        self.judge = judge

    def judge_of(self, task: Task, folder: RunFolder) -> Judge:
        return self.judge


@pytest.fixture(scope="session")
def relu_judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """The judge of relu, for runs that need none of their own."""
    judge = LastingJudge(Task(**RELU), tmp_path_factory.mktemp("relu_judge"), LIMITS)
    yield judge
    judge.end()


@pytest.fixture(scope="session")
def new_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Gives libraries that know the project's pages and nothing else, copied from one."""
    folder = tmp_path_factory.mktemp("libraries")
    library = Library.open(folder / "indexed", for_run=True)
    library.refresh()
    library.close()
    numbers = itertools.count()
    return lambda: Path(shutil.copytree(folder / "indexed", folder / f"copy-{next(numbers)}"))


class Runs:
    """Runs of a scripted crew on relu, all by one judge, each in a folder of its own."""

    def __init__(self, folder: Path, judge: Judge, library: Path) -> None:
        self.folder = folder
        self.judge = judge
        self.library = library

    def run(self, *attempts: tuple[str, ...], **settings: object) -> RunRecord:
        script = ScriptedCrew(*attempts)
        task = Task(**RELU, budget=settings.pop("budget", Budget()), **settings)
        crew = Crew(script, script, script, script)
        benches = SharedBenches(self.library, crew, self.judge)
        try:
            graph = build_graph(benches, runs=self.folder / "runs")
            return record_of(graph.invoke(RunInput(task=task), {"recursion_limit": 200}))
        finally:
            benches.close_all()


@pytest.fixture(scope="session")
def new_runs(
    tmp_path_factory: pytest.TempPathFactory, relu_judge: Judge, new_library: Callable[[], Path]
) -> NewRuns:
    """Gives runs of scripted crews that share a judge and nothing else."""
    return lambda: Runs(tmp_path_factory.mktemp("runs"), relu_judge, new_library())
