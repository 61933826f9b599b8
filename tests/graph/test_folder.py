"""A run's folder is made whole or not at all, and gives every trial a number of its own."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agents.brief import Plan
from graph.folder import RunFolder, write_whole
from knowledge.errors import BadInput
from tools.task import InputSpec, Task


def task() -> Task:
    return Task(name="My Op!", op="torch.relu", inputs=(InputSpec(shape=(2, 2)),))


def plan(identity: str) -> Plan:
    return Plan(id=identity, title="", steps=(), expected_speedup=1.0, arithmetic="")


def test_threads_that_claim_trials_at_once_get_different_numbers(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, task())
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda n: folder.claim_trial(plan(f"p{n}")), range(40)))
    assert sorted(numbers) == list(range(1, 41))


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, task())
    folder.claim_trial(plan("p1"))
    assert RunFolder(folder.path).claim_trial(plan("p2")) == 2


def test_a_plan_keeps_its_number_when_it_is_claimed_again_after_a_restart(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, task())
    folder.claim_trial(plan("p1"))
    number = folder.claim_trial(plan("p2"))
    assert RunFolder(folder.path).claim_trial(plan("p2")) == number


def test_a_number_of_which_nothing_came_is_given_back(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, task())
    folder.release_trial(folder.claim_trial(plan("p1")))
    assert folder.claim_trial(plan("p2")) == 1


def test_two_processes_cannot_work_on_one_run(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, task())
    with folder.held(), pytest.raises(BadInput, match="another process"), folder.held():
        pass


def test_the_task_can_be_read_back_from_the_folder(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, task())
    folder.checkpoint.touch()
    _, again = RunFolder.reopen(folder.path)
    assert again == task()


def test_resuming_what_is_not_a_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not the folder of a run"):
        RunFolder.reopen(tmp_path)


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be made"):
        RunFolder.create(tmp_path / "file", task())


def test_a_written_file_leaves_no_draft_behind(tmp_path: Path) -> None:
    write_whole(tmp_path / "report.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
