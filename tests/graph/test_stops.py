"""However a run stops before its time, it ends in order, says so, and goes on where that helps."""

import os
import signal
import time
from pathlib import Path

import pytest

from agents.llm.exchange import Role, Unreachable
from graph.drive import Interrupted, work
from graph.folder import RunFolder
from graph.record import BASELINE_PLAN, RunRecord
from graph.state import RunInput
from graph.workbench import CrewMaker, Thinking, Workbenches
from tests.graph.conftest import LIMITS, RIGHT
from tests.graph.speaking import TOKENS_IN, TOKENS_OUT, price, speaking_crew
from tools.task import Budget, InputSpec, Task

CALL = TOKENS_IN + TOKENS_OUT


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared") / "library"


def fresh(base: Path, **budget: float) -> tuple[RunFolder, Task]:
    task = Task(
        name="relu",
        op="torch.relu",
        inputs=(InputSpec(shape=(64, 64)),),
        width=1,
        budget=Budget.model_validate(budget),
    )
    return RunFolder.create(base, task), task


def go(
    folder: RunFolder, task: Task, crew: CrewMaker, library: Path, *, resume: bool = False
) -> RunRecord:
    benches = Workbenches(library, crew, LIMITS, thinking=Thinking(price_of=price))
    entry = None if resume else RunInput(task=task, run_dir=str(folder.path))
    return work(folder, task, entry, quiet=True, benches=benches)


def test_a_plan_that_no_budget_is_left_for_is_reported_and_not_lost(
    tmp_path: Path, library: Path
) -> None:
    folder, task = fresh(tmp_path, tokens=2 * CALL - 1)
    record = go(folder, task, speaking_crew(tmp_path / "paid", (RIGHT,)), library)
    assert record.finished
    assert "tokens is spent" in record.ended
    assert [one.plan for one in record.unspent] == ["p1"]
    assert record.trials == ()
    assert record.usage.tokens == CALL
    assert "Not carried out" in (folder.path / "report.html").read_text()


def test_a_budget_that_ends_in_the_middle_of_an_attempt_keeps_the_best_so_far(
    tmp_path: Path, library: Path
) -> None:
    folder, task = fresh(tmp_path, tokens=2 * CALL)
    record = go(folder, task, speaking_crew(tmp_path / "paid", (RIGHT,), (RIGHT,)), library)
    tried = [trial for trial in record.trials if trial.plan != BASELINE_PLAN]
    assert [trial.verdict.kind for trial in tried] == ["correct"]
    assert record.diagnoses == ()
    assert record.winner is not None
    assert "tokens is spent" in record.ended
    assert (folder.best / "kernel.py").is_file()


def test_a_budget_of_the_device_ends_the_run(tmp_path: Path, library: Path) -> None:
    folder, task = fresh(tmp_path, device_seconds=0.001)
    record = go(folder, task, speaking_crew(tmp_path / "paid", (RIGHT,), (RIGHT,)), library)
    tried = [trial for trial in record.trials if trial.plan != BASELINE_PLAN]
    # One plan is tried all the same, as preparing alone may take more.
    assert len(tried) == 1
    assert "seconds on the device is spent" in record.ended


def test_a_run_whose_model_is_out_of_reach_is_parked_and_goes_on(
    tmp_path: Path, library: Path
) -> None:
    folder, task = fresh(tmp_path)

    def fail(role: Role, plan: str) -> None:
        if role == "coder":
            raise Unreachable("no answer after 5 tries")

    with pytest.raises(Interrupted, match="parked: no answer after 5 tries"):
        go(folder, task, speaking_crew(tmp_path / "paid", (RIGHT,), before=fail), library)
    assert "Not finished" in (folder.path / "report.html").read_text()
    crew = speaking_crew(tmp_path / "paid", (RIGHT,))
    record = go(folder, task, crew, library, resume=True)
    assert record.finished
    assert record.trials[0].verdict.kind == "correct"
    bills = (tmp_path / "paid").read_text().splitlines()
    assert len(bills) == len(set(bills))


def test_an_interrupted_run_leaves_a_report_of_the_best_so_far(
    tmp_path: Path, library: Path
) -> None:
    folder, task = fresh(tmp_path)

    def interrupt(role: Role, plan: str) -> None:
        if (role, plan) == ("coder", "p2"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    crew = speaking_crew(tmp_path / "paid", (RIGHT,), (RIGHT + "#",), after=interrupt)
    with pytest.raises(Interrupted, match="interrupted"):
        go(folder, task, crew, library)
    record = RunRecord.model_validate_json((folder.path / "report.json").read_text())
    assert not record.finished
    assert [trial.plan for trial in record.trials] == ["p1"]
    page = (folder.path / "report.html").read_text()
    assert "the best so far is trial 1" in page
    assert "not confirmed" in page
