from pathlib import Path

import pytest
import yaml

from eval.suite import load_suite
from knowledge.errors import BadInput

REFERENCE = "class Model:\n    pass\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / "softmax.py").write_text(REFERENCE)
    (tmp_path / "ops" / "softmax.yaml").write_text("name: soft\nreference: softmax.py\n")
    (tmp_path / "ops" / "norm.py").write_text("raise SystemExit('never imported')\n" + REFERENCE)
    (tmp_path / "ops" / "shared.py").write_text("class Helper:\n    pass\n")
    (tmp_path / "ops" / "broken.py").write_text("class Model(:\n")
    return tmp_path


def suite_file(folder: Path, entries: object) -> Path:
    file = folder / "suite.yaml"
    file.write_text(yaml.safe_dump(entries))
    return file


def test_a_list_takes_paths_and_inline_tasks_both_relative_to_the_suite(folder: Path) -> None:
    inline = {"name": "own norm", "reference": "ops/norm.py", "budget": {"minutes": 2}}
    tasks = load_suite(suite_file(folder, ["ops/softmax.yaml", inline]))
    assert [task.name for task in tasks] == ["soft", "own norm"]
    assert tasks[1].reference == (folder / "ops" / "norm.py").resolve()
    assert tasks[1].budget.minutes == 2


def test_in_a_folder_each_task_and_each_other_file_with_a_model_is_a_problem(folder: Path) -> None:
    assert [task.name for task in load_suite(folder / "ops")] == ["soft", "norm"]


def test_settings_reach_every_problem(folder: Path) -> None:
    inline = {"name": "own norm", "reference": "ops/norm.py"}
    file = suite_file(folder, ["ops/softmax.yaml", inline])
    tasks = load_suite(file, ("pages=huge", "budget.trials=3"))
    assert {(task.pages, task.budget.trials) for task in tasks} == {("huge", 3)}


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"tasks": []}, "is not a list"),
        ([], "holds no problem"),
        (["ops/missing.yaml"], "cannot be read"),
        ([7], "neither a path nor a task"),
        ([{"reference": "ops/norm.py"}], "has no name"),
        ([{"name": "x", "reference": "ops/norm.py", "budgets": {}}], 'Did you mean "budget"?'),
        ([{"name": "x", "reference": "gone.py"}], "gone.py does not exist"),
        (["ops/softmax.yaml", "ops/softmax.yaml"], '2 problems are named "soft"'),
    ],
)
def test_a_mistake_in_a_suite_is_one_clear_line(
    folder: Path, entries: object, complaint: str
) -> None:
    with pytest.raises(BadInput) as raised:
        load_suite(suite_file(folder, entries))
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_suite_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load_suite(tmp_path / "none.yaml")
