"""However a run stops before its time, it ends in order, says so, and goes on where that helps."""

import errno
import os
import shlex
import signal
import time
from pathlib import Path

import pytest

from agents.llm.exchange import Role, Unreachable
from graph.drive import Interrupted, way_on, work
from graph.folder import RunFolder
from graph.meter import Meter
from graph.record import BASELINE_PLAN, RunRecord
from graph.state import RunInput
from graph.workbench import CrewMaker, Thinking, Workbenches, answers_beside
from knowledge.catalogue import home_folder
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


def test_a_run_that_finds_the_disk_full_goes_on_once_there_is_room(
    tmp_path: Path, library: Path
) -> None:
    folder, task = fresh(tmp_path)

    def fail(role: Role, plan: str) -> None:
        if role == "coder":
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Interrupted, match="the disk is full; go on with"):
        go(folder, task, speaking_crew(tmp_path / "paid", (RIGHT,), before=fail), library)
    crew = speaking_crew(tmp_path / "paid", (RIGHT,))
    assert go(folder, task, crew, library, resume=True).finished


def test_a_second_interrupt_while_the_report_is_written_still_names_the_folder(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, task = fresh(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graph.drive.traced", interrupt)
    with pytest.raises(Interrupted, match="interrupted; go on with"):
        go(folder, task, speaking_crew(tmp_path / "paid", (RIGHT,)), library)


def test_a_command_with_a_space_in_its_path_can_be_pasted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "my runs" / "x")
    assert shlex.split(way_on(folder).partition(": ")[2])[-1] == str(folder.path)


@pytest.mark.parametrize(
    ("library", "lies"),
    [
        ("http://host:8000/db", home_folder().with_name("library-answers")),
        ("~/lib", Path.home() / "lib-answers"),
    ],
)
def test_answers_lie_beside_the_library_and_at_home_where_that_is_a_servers(
    library: str, lies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", library)
    assert answers_beside(None) == lies.with_name(lies.name)
    assert answers_beside(Path()).is_absolute()


def test_a_lap_that_was_torn_is_not_counted(tmp_path: Path) -> None:
    whole = '{"what": "node", "candidate": "", "wall_seconds": 3.0, "device_seconds": 0.0}\n'
    (tmp_path / "spent.jsonl").write_text(f'{whole}{{"what": "no{whole}{whole}')
    assert 6.0 <= Meter(tmp_path / "spent.jsonl").wall_seconds < 60.0


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
