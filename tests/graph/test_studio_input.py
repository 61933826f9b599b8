"""What the served graph makes of its input, without a server."""

import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from langgraph.runtime import Runtime
from pydantic import ValidationError

from agents.crew import Crew
from agents.llm.exchange import Unreachable
from graph import studio
from graph.folder import RunFolder
from graph.settings import Settings, entry_of
from graph.state import change_task
from graph.workbench import Stopping, Workbenches
from knowledge.errors import BadInput
from tests.graph.conftest import LIMITS, RELU, ScriptedCrew
from tools.judge.client import JudgeClosed
from tools.task import Task

RAW: dict[str, Any] = {"name": "relu", "op": "torch.relu", "inputs": [{"shape": [64, 64]}]}


def settings(**keys: Any) -> Any:
    return Settings(**keys)


def test_settings_go_over_the_task_key_by_key() -> None:
    raw = {**RAW, "budget": {"trials": 9, "minutes": 3}, "strategy": "greedy"}
    given = settings(budget={"trials": 2}, model="ollama:qwen3", width=1)
    task = entry_of({"task": raw}, given).task
    assert (task.budget.trials, task.budget.minutes) == (2, 3)
    assert (task.strategy, task.width, task.model.default) == ("greedy", 1, "ollama:qwen3")


def test_a_task_that_was_made_in_this_process_is_taken_too() -> None:
    task = Task(**RELU, width=3)
    assert entry_of({"task": task, "approve": True}).task == task


def test_settings_that_are_another_graphs_are_left_alone() -> None:
    assert entry_of({"task": RAW}, context={"width": 7}).task.width == 2


def test_every_setting_is_a_key_of_the_task() -> None:
    assert set(Settings.model_fields) <= set(Task.model_fields)
    with pytest.raises(ValidationError):
        settings(widht=1)


def test_a_setting_that_does_not_fit_is_one_clear_line() -> None:
    with pytest.raises(BadInput, match=r"^task: width: Input should be greater than or equal to 1"):
        entry_of({"task": RAW}, settings(width=0))


def test_a_relative_reference_is_looked_up_from_where_the_server_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    entry = entry_of({"task": {"name": "mine", "reference": "mine.py"}})
    assert entry.task.reference == tmp_path / "mine.py"


def test_a_part_of_a_task_goes_over_the_stored_one_when_a_run_is_forked() -> None:
    stored = Task(**RELU, width=3)
    changed = change_task(stored, {"budget": {"trials": 40}})
    assert changed == stored.model_copy(
        update={"budget": stored.budget.model_copy(update={"trials": 40})}
    )
    assert change_task(stored, Task(**RELU)) == Task(**RELU)
    with pytest.raises(ValidationError):
        change_task(stored, {"bugdet": {}})


def prepare(tmp_path: Path, benches: Workbenches, **state: Any) -> Any:
    nodes = studio.ServedNodes(benches, tmp_path / "runs")
    told = studio.telling(nodes.prepare)
    return told({"task": RAW, **state}, runtime=Runtime())


def test_a_thread_that_holds_a_run_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^thread: holds a run already"):
        prepare(tmp_path, Workbenches(), started="2026-01-01T00:00:00+00:00")


def test_a_folder_that_holds_a_run_is_not_taken_for_another(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, Task(**RELU))
    (folder.trials / "1").mkdir()
    with pytest.raises(ValueError, match="run_dir: holds a run already"):
        prepare(tmp_path, Workbenches(), run_dir=str(folder.path))


def test_kernels_are_never_written_where_they_would_restart_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
    assert studio.runs_folder() == Path("runs")
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    assert tmp_path not in studio.runs_folder().parents
    with pytest.raises(ValueError, match="--no-reload"):
        prepare(tmp_path, Workbenches(), run_dir="here")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("error", [BadInput("task", "is wrong."), Unreachable("no answer")])
def test_complaints_reach_the_caller_as_an_error_that_the_server_passes_on(
    error: Exception,
) -> None:
    def fails(state: Any) -> Any:
        raise error

    with pytest.raises(ValueError, match=str(error)):
        studio.telling(fails)({})


def test_keys_are_taken_out_of_what_the_caller_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-0123456789")

    def fails(state: Any) -> Any:
        raise Unreachable("401 for sk-0123456789")

    with pytest.raises(ValueError, match="401 for") as caught:
        studio.telling(fails)({})
    assert "sk-0123456789" not in str(caught.value)


def test_an_abandoned_judge_ends_amid_its_work_and_starts_no_other(tmp_path: Path) -> None:
    task = Task(**RELU)
    script = ScriptedCrew()
    benches = Workbenches(tmp_path / "library", Crew(script, script, script, script), LIMITS)
    folder = RunFolder.create(tmp_path, task)
    before = set(psutil.Process().children(recursive=True))
    bench = benches.of(str(folder.path), task)
    started = threading.Event()
    ended: list[BaseException] = []

    def ask() -> None:
        started.set()
        try:
            bench.judge.examine()
            bench.judge.survey()
        except JudgeClosed as error:
            ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    started.wait()
    while set(psutil.Process().children(recursive=True)) <= before:
        time.sleep(0.01)
    benches.abandon()
    asking.join(20)
    assert not asking.is_alive()
    assert ended
    benches.close_all()
    assert set(psutil.Process().children(recursive=True)) <= before
    with pytest.raises(Stopping):
        benches.of(str(folder.path), task)


def test_a_run_in_a_folder_that_another_works_in_is_told_so(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, Task(**RELU))
    benches = studio.ServedBenches()
    with folder.held(), pytest.raises(BadInput, match="being worked on by another"):
        benches.of(str(folder.path), Task(**RELU))
    benches.close_all()
