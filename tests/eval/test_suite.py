from pathlib import Path

import pytest
import yaml

from eval.problem import Labels, Problem
from eval.suite import Where, choose, open_suite, shard_of
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
    tasks = [p.task for p in open_suite(suite_file(folder, ["ops/softmax.yaml", inline])).problems]
    assert [task.name for task in tasks] == ["soft", "own norm"]
    assert tasks[1].reference == (folder / "ops" / "norm.py").resolve()
    assert tasks[1].budget.minutes == 2


def test_in_a_folder_each_task_and_each_other_file_with_a_model_is_a_problem(folder: Path) -> None:
    problems = open_suite(folder / "ops").problems
    assert [problem.task.name for problem in problems] == ["soft", "broken", "norm"]
    assert {problem.labels for problem in problems} == {Labels()}


def test_settings_reach_every_problem(folder: Path) -> None:
    inline = {"name": "own norm", "reference": "ops/norm.py"}
    file = suite_file(folder, ["ops/softmax.yaml", inline])
    tasks = [
        problem.task for problem in open_suite(file, ("pages=huge", "budget.trials=3")).problems
    ]
    assert {(task.pages, task.budget.trials) for task in tasks} == {("huge", 3)}


@pytest.mark.parametrize("text", ["- a: [\n", "- date: 0000-00-00\n", "[" * 5000])
def test_a_suite_that_yaml_cannot_read_is_one_clear_line(folder: Path, text: str) -> None:
    file = folder / "suite.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match="is not YAML") as raised:
        open_suite(file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"tasks": []}, "is not a list"),
        ([], "holds no problem"),
        (["ops/missing.yaml"], "cannot be read"),
        ([7], "neither a path nor a task"),
        ([{"reference": "ops/norm.py"}], "has no name"),
        ([{"name": "x", "reference": "ops/norm.py", "budgets": {}}], 'Did you mean "budget"?'),
        ([{"name": "x", "reference": "ops/norm.py", "famly": "n"}], 'Did you mean "family"?'),
        ([{"name": "x", "reference": "ops/norm.py", "kind": "two"}], "entry 1: kind: is 'two'"),
        ([{"name": "x", "reference": "ops/norm.py", "holdout": "no"}], "entry 1: holdout: is 'no'"),
        ([{"name": "x", "reference": "ops/norm.py", "level": "one"}], "entry 1: level: is 'one'"),
        ([{"name": "x", "reference": "gone.py"}], "gone.py does not exist"),
        (["ops/softmax.yaml", "ops/softmax.yaml"], '2 problems are named "soft"'),
    ],
)
def test_a_mistake_in_a_suite_is_one_clear_line(
    folder: Path, entries: object, complaint: str
) -> None:
    with pytest.raises(BadInput) as raised:
        open_suite(suite_file(folder, entries))
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_suite_may_say_where_it_is_run(folder: Path) -> None:
    problems = ["ops/softmax.yaml"]
    asked = {"executor": "ray", "address": "10.0.0.1:6379", "beside": 2, "problems": problems}
    found = open_suite(suite_file(folder, asked))
    assert [problem.task.name for problem in found.problems] == ["soft"]
    assert found.where == Where(executor="ray", address="10.0.0.1:6379", beside=2)
    assert open_suite(suite_file(folder, problems)).where == Where()


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        ({"executor": "slurm"}, "executor: is 'slurm'"),
        ({"beside": 0}, "beside: is 0"),
        ({"adress": "x:1"}, 'Did you mean "address"?'),
    ],
)
def test_a_mistake_in_where_names_its_key(
    folder: Path, extra: dict[str, object], complaint: str
) -> None:
    with pytest.raises(BadInput) as raised:
        open_suite(suite_file(folder, {"problems": ["ops/softmax.yaml"], **extra}))
    assert complaint in str(raised.value)


def test_a_suite_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        open_suite(tmp_path / "none.yaml")


def test_an_inline_task_may_carry_labels(folder: Path) -> None:
    labels = {"family": "norms", "kind": "single", "holdout": True}
    inline = {"name": "own norm", "reference": "ops/norm.py"} | labels
    problems = open_suite(suite_file(folder, [inline, "ops/softmax.yaml"])).problems
    assert [problem.labels for problem in problems] == [
        Labels(family="norms", kind="single", holdout=True),
        Labels(),
    ]


@pytest.mark.parametrize(
    ("only", "holdout", "chosen"),
    [
        (None, None, ["conv_a", "conv_b", "scan"]),
        ("scan,conv_a", None, ["conv_a", "scan"]),
        ("conv_*", None, ["conv_a", "conv_b"]),
        (None, True, ["conv_b"]),
        (None, False, ["conv_a", "scan"]),
        ("conv_*", False, ["conv_a"]),
    ],
)
def test_problems_are_chosen_by_name_pattern_and_part(
    folder: Path, only: str | None, holdout: bool | None, chosen: list[str]
) -> None:
    entries = [
        {"name": name, "reference": "ops/norm.py", "holdout": name == "conv_b"}
        for name in ("conv_a", "conv_b", "scan")
    ]
    problems = choose(open_suite(suite_file(folder, entries)).problems, only, holdout)
    assert [problem.task.name for problem in problems] == chosen


@pytest.mark.parametrize("only", ["softmux", "soft,norn", "conv*", ","])
def test_a_name_that_no_problem_has_is_a_mistake(folder: Path, only: str) -> None:
    problems: list[Problem] = open_suite(folder / "ops").problems
    with pytest.raises(BadInput, match="--only"):
        choose(problems, only)


def test_a_name_with_brackets_or_a_comma_is_found_as_it_stands(folder: Path) -> None:
    names = ("level1/3_sum[int], all", "level1/3_sumi, all", "conv")
    entries = [{"name": name, "reference": "ops/norm.py"} for name in names]
    problems = open_suite(suite_file(folder, entries)).problems
    assert [one.task.name for one in choose(problems, names[0])] == [names[0]]
    assert [one.task.name for one in choose(problems, "3_sum*")] == [*names[:2]]


def test_shards_share_the_problems_out(folder: Path) -> None:
    entries = [{"name": str(n), "reference": "ops/norm.py"} for n in range(7)]
    problems = open_suite(suite_file(folder, entries)).problems
    shards = [shard_of(problems, f"{part}/3") for part in (1, 2, 3)]
    assert sorted(p.number for shard in shards for p in shard) == list(range(1, 8))
    assert [len(shard) for shard in shards] == [3, 2, 2]


def test_the_ci_suite_is_small_and_valid() -> None:
    suite = open_suite(Path(__file__).parents[2] / "eval" / "suites" / "ci.yaml")
    assert 3 <= len(suite.problems) <= 4
    assert all(one.task.budget.trials <= 2 and one.labels.family for one in suite.problems)
