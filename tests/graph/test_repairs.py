"""The playbook's debugger in the real graph: kernels that fail in each way the judge knows.

Each is a real candidate, with a fault that the mend which fits the failure takes away.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from agents.brief import Brief, Plan, Planning
from agents.crew import Crew
from agents.playbook.coder import PlaybookCoder
from agents.playbook.debugger import PlaybookDebugger
from agents.playbook.profiler import PlaybookProfiler
from graph.build import build_graph
from graph.record import RunRecord
from graph.report.attempts import attempts
from graph.report.kin import bases_of
from graph.report.limits import Limits
from graph.state import RunInput
from graph.summary import record_of
from graph.workbench import Workbenches
from knowledge.pattern import Parameter, Step
from tools.candidate import Candidate
from tools.judge.wire import JudgeLimits
from tools.task import Budget, InputSpec, Task

pytestmark = pytest.mark.slow
LIMITS = JudgeLimits(
    call_s=10, first_call_s=15, load_s=30, compile_s=120, preparation_s=1, timing_s=0.1
)
ROWS = 60
LOOP = Step(
    pattern="row_loop", parameters={"exp": "inline", "accumulate": "float", "streaming": True}
)
FAULTY = """

import ctypes
import time

Sound = ModelNew
true_clock = time.perf_counter_ns


def slow_clock():
    return true_clock() // 100


class ModelNew(Sound):
    def forward(self, x):
        {fault}
"""
# By the verdict that it leads to: what forward does instead, and the parameter that cures it.
FAULTS: dict[str, tuple[str, str, Parameter]] = {
    "wrong_output": ("return super().forward(x) * 1.00005", "accumulate", "double"),
    "wrong_output shape": (f"return super().forward(x) * (x.shape[0] == {ROWS})",
                           "traced_shapes", True),
    "crashed": ("ctypes.string_at(0)", "streaming", False),
    "timed_out": ("time.sleep(60)", "one_thread", True),
    "contract_broken": ("return super().forward(x)[:1].expand(x.shape)", "fresh_outputs", True),
    "cheated": ("y = super().forward(x); vars(self).setdefault('kept', y).copy_(y); "
                "return self.kept", "fresh_outputs", True),
    "build_failed": ("", "exp", "libm"),
    "timer_mismatch": ("time.perf_counter_ns = slow_clock; time.sleep(0.002); "
                       "return super().forward(x)", "streaming", False),
}  # fmt: skip


class FaultyCrew(PlaybookCoder):
    """One plan a fault, all with the same steps; the playbook's debugger does the rest."""

    def plan(self, brief: Brief) -> Planning:
        if brief.plans:
            return Planning(plans=())
        plans = [
            Plan(id=f"p{number}", title=name, steps=(LOOP,), expected_speedup=1.0, arithmetic="")
            for number, name in enumerate(FAULTS, 1)
        ]
        return Planning(plans=tuple(plans))

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        sound = super().write(brief, plan)
        fault, parameter, value = FAULTS[plan.title]
        if any(step.parameters.get(parameter) == value for step in plan.steps):
            return sound
        source = sound.source + FAULTY.format(fault=fault)
        if not fault:
            source = sound.source.replace('extern "C"', 'int x = "no number"; extern "C"')
        return sound.model_copy(update={"source": source})


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, new_library: Callable[[], Path]) -> RunRecord:
    folder = tmp_path_factory.mktemp("repairs")
    crew = FaultyCrew()
    task = Task(
        name="softmax",
        op="torch.softmax",
        inputs=(InputSpec(shape=(ROWS, 256)),),
        arguments={"dim": -1},
        width=len(FAULTS),
        budget=Budget(trials=60, repairs=4),
    )
    benches = Workbenches(
        new_library(), Crew(crew, crew, PlaybookDebugger(crew), PlaybookProfiler()), LIMITS
    )
    try:
        graph = build_graph(benches, runs=folder / "runs")
        return record_of(graph.invoke(RunInput(task=task), {"recursion_limit": 200}))
    finally:
        benches.close_all()


Chain = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def chain(record: RunRecord) -> Chain:
    """The verdicts of one plan's trials, in order."""

    def of(name: str) -> list[str]:
        return [trial.verdict.kind for trial in record.trials if trial.title == name]

    return of


@pytest.mark.parametrize("name", FAULTS)
def test_each_way_to_fail_is_mended_by_what_fits_it(name: str, chain: Chain) -> None:
    first, *between, last = chain(name)
    assert first == name.split()[0]
    assert set(between) <= {first}
    assert last == "correct"


def test_the_run_ends_with_a_right_kernel(record: RunRecord) -> None:
    assert record.winner is not None
    assert record.confirmation is not None
    assert record.confirmation.kind == "correct"


def test_the_report_says_what_was_mended_and_whether_it_helped(record: RunRecord) -> None:
    rows = attempts(record, bases_of(record), Limits(), {}).rows
    failed = [one for one in rows if one.words.label != "correct" and one.mend]
    assert len(failed) >= len(FAULTS)
    assert all("trial" in one.outcome for one in failed)
    assert any("It helped" in one.outcome for one in failed)
