"""A scripted crew in the real graph, with the real judge, on an op small enough for a test."""

from pathlib import Path

from agents.brief import Brief, Diagnosis, Plan, Planning
from agents.crew import Crew
from agents.playbook.profiler import PlaybookProfiler
from graph.build import build_graph
from graph.record import RunRecord
from graph.state import RunInput
from graph.summary import record_of
from graph.workbench import Workbenches
from tools.candidate import Candidate
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


class Runs:
    """Runs of a scripted crew on relu, in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *attempts: tuple[str, ...], **settings: object) -> RunRecord:
        script = ScriptedCrew(*attempts)
        task = Task(
            name="relu",
            op="torch.relu",
            inputs=(InputSpec(shape=(64, 64)),),
            budget=settings.pop("budget", Budget()),
            **settings,
        )
        benches = Workbenches(self.folder / "library", Crew(script, script, script, script), LIMITS)
        try:
            graph = build_graph(benches, runs=self.folder / "runs")
            return record_of(graph.invoke(RunInput(task=task), {"recursion_limit": 200}))
        finally:
            benches.close_all()
