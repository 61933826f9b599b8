import json
import os
from pathlib import Path

import pytest

from eval.folder import MOST_BYTES, natural
from eval.suite import Suite, open_suite
from knowledge.errors import BadInput
from tools.task import MOST_WORKLOADS

REFERENCE = "class Model:\n    pass\n\n\ndef get_inputs():\n    return []\n"
DEFINITION = {
    "name": "rmsnorm_h4096",
    "op_type": "rmsnorm",
    "axes": {"batch": {"type": "var"}, "hidden": {"type": "const", "value": 4096}},
    "inputs": {},
    "outputs": {},
    "reference": "def run(x):\n    return x\n",
}


def put(folder: Path, **files: str) -> None:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def names(suite: Suite) -> list[str]:
    return [problem.task.name for problem in suite.problems]


def test_levels_are_read_from_folders_and_problems_come_in_the_order_of_their_numbers(
    tmp_path: Path,
) -> None:
    put(tmp_path, **{
        "level2/1_chain.py": REFERENCE, "level1/10_relu.py": REFERENCE,
        "level1/2_Square matrix, (a) [b].py": REFERENCE,
    })  # fmt: skip
    suite = open_suite(tmp_path)
    assert names(suite) == ["level1/2_Square matrix, (a) [b]", "level1/10_relu", "level2/1_chain"]
    assert [problem.labels.level for problem in suite.problems] == [1, 1, 2]
    assert [problem.number for problem in suite.problems] == [1, 2, 3]


def test_the_folder_itself_may_be_a_level_and_others_are_families(tmp_path: Path) -> None:
    put(tmp_path / "level_3", **{"norms/a.py": REFERENCE, "b.py": REFERENCE})
    labels = {p.task.name: p.labels for p in open_suite(tmp_path / "level_3").problems}
    assert (labels["norms/a"].level, labels["norms/a"].family) == (3, "norms")
    assert (labels["b"].level, labels["b"].family) == (3, "")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("helper.py", "def f():\n    pass\n", "has no class Model"),
        ("kernel.py", "class ModelNew:\n    pass\n", "a candidate"),
        ("notes.md", "# hello\n", "neither Python"),
        ("notes.py", "def (:\n", "not Python that can be parsed"),
        ("config.yaml", "logging: true\n", "names none of reference, op, module, definition"),
        ("list.yml", "- a\n", "not a task"),
        ("broken.yaml", "a: [\n", "not a task"),
        ("dated.yaml", "date: 0000-00-00\n", "not a task"),
        ("deep.yaml", "[" * 5000, "not a task"),
        ("large.yaml", "reference: op.py\n#" + "." * MOST_BYTES, "too large"),
        ("data.json", "[1, 2]", "not a definition"),
        ("half.json", "{", "not JSON that can be parsed"),
    ],
)
def test_what_is_no_problem_is_listed_with_the_reason(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    put(tmp_path, **{"op.py": REFERENCE, name: text})
    suite = open_suite(tmp_path)
    assert names(suite) == ["op"]
    assert [one.file for one in suite.others] == [name]
    assert reason in suite.others[0].reason


def test_bytes_that_are_no_text_are_no_problem(tmp_path: Path) -> None:
    put(tmp_path, **{"op.py": REFERENCE})
    (tmp_path / "a.py").write_bytes(b"class Model:\n  x = '\xff\xfe'\n")
    assert [one.reason for one in open_suite(tmp_path).others] == ["not text in UTF-8"]


@pytest.mark.parametrize(
    "text",
    [
        "class Model(:\n",
        "import torch\n\ndef get_inputs():\n    return [torch.ones(2)]\n",
        "from base import Model\n",
        "Model = make()\n",
    ],
)
def test_what_looks_like_a_problem_is_one_and_its_run_says_what_is_wrong(
    tmp_path: Path, text: str
) -> None:
    put(tmp_path, **{"op.py": text})
    assert names(open_suite(tmp_path)) == ["op"]


def test_hidden_folders_and_caches_are_not_looked_into(tmp_path: Path) -> None:
    put(tmp_path, **{
        "op.py": REFERENCE, ".git/a.py": REFERENCE, "__pycache__/b.py": REFERENCE,
        ".hidden.py": REFERENCE,
    })  # fmt: skip
    suite = open_suite(tmp_path)
    assert (names(suite), suite.others) == (["op"], ())


def test_what_evaluations_and_runs_wrote_into_the_folder_is_no_problem_and_is_said(
    tmp_path: Path,
) -> None:
    task = "reference: reference.py\n"
    put(tmp_path, **{
        "op.py": REFERENCE,
        "runs/20261129-op/task.yaml": task, "runs/20261129-op/trials/1/kernel.py": "",
        "runs/20261129-op/best/reference.py": REFERENCE,
        "runs/eval/core/results.json": "{}", "runs/eval/core/problems/001-op/task.yaml": task,
        "runs/eval/core/problems/001-op/reference.py": REFERENCE,
    })  # fmt: skip
    suite = open_suite(tmp_path)
    assert names(suite) == ["op"]
    assert [one.file for one in suite.others] == ["runs/20261129-op", "runs/eval/core"]
    assert "written by an evaluation" in suite.others[0].reason


def test_a_folder_may_hold_its_own_results(tmp_path: Path) -> None:
    put(tmp_path, **{
        "op.py": REFERENCE, "results.json": "{}", "results.html": "",
        "problems/001-op/task.yaml": "reference: reference.py\n",
        "problems/001-op/reference.py": REFERENCE, "problems/001-op/problem.log": "",
    })  # fmt: skip
    assert names(open_suite(tmp_path)) == ["op"]


def test_a_task_file_that_is_wrong_is_a_mistake_and_not_passed_over(tmp_path: Path) -> None:
    put(tmp_path, **{"op.py": REFERENCE, "task.yaml": "reference: op.py\nbuget: {}\n"})
    with pytest.raises(BadInput, match="budget"):
        open_suite(tmp_path)
    for wrong in ("  bad: [\n", "date: 0000-00-00\n"):
        put(tmp_path, **{"task.yaml": f"reference: op.py\n{wrong}"})
        with pytest.raises(BadInput, match="is not YAML"):
            open_suite(tmp_path)


def test_a_folder_without_problems_says_what_it_holds_instead(tmp_path: Path) -> None:
    put(tmp_path, **{"kernel.py": "class ModelNew:\n    pass\n"})
    with pytest.raises(BadInput, match=r"holds no problem.*a candidate"):
        open_suite(tmp_path)


def test_a_definition_is_a_problem_with_its_workloads(tmp_path: Path) -> None:
    tensor = {"shape": ["batch", "hidden"], "dtype": "float32"}
    whole = {**DEFINITION, "inputs": {"x": tensor}, "outputs": {"y": tensor}}
    drawn = [
        {
            "definition": "rmsnorm_h4096",
            "workload": {
                "uuid": f"w{batch}",
                "axes": {"batch": batch},
                "inputs": {"x": {"type": "random"}},
            },
        }
        for batch in (2, 8)
    ]
    put(tmp_path, **{
        "definitions/rmsnorm/rmsnorm_h4096.json": json.dumps(whole),
        "definitions/rmsnorm/without_tensors.json": json.dumps(DEFINITION),
        "workloads/rmsnorm/rmsnorm_h4096.jsonl": "\n".join(map(json.dumps, drawn)),
        "op.py": REFERENCE,
    })  # fmt: skip
    suite = open_suite(tmp_path)
    assert set(names(suite)) == {"op", "rmsnorm_h4096"}
    told = "definition: definitions/rmsnorm/rmsnorm_h4096.json\n"
    put(tmp_path, **{"norm.yaml": f"{told}workloads: workloads/rmsnorm/rmsnorm_h4096.jsonl\n"})
    assert set(names(open_suite(tmp_path))) == {"op", "norm"}
    (defined,) = (one.task for one in suite.problems if one.task.name == "rmsnorm_h4096")
    assert [one.name for one in defined.workloads] == ["w2", "w8"]
    reasons = {one.file: one.reason for one in suite.others}
    assert reasons["workloads/rmsnorm/rmsnorm_h4096.jsonl"] == (
        "workloads, read with their definition"
    )
    assert "inputs" in reasons["definitions/rmsnorm/without_tensors.json"]


def test_people_count_two_before_ten() -> None:
    given = ["10_a", "2_a", "2_B", "level10/1", "level9/1", "a2b10", "a2b9"]
    assert sorted(given, key=natural) == [
        "2_a", "2_B", "10_a", "a2b9", "a2b10", "level9/1", "level10/1",
    ]  # fmt: skip


def test_a_folder_a_definition_keeps_its_workloads_spread_over_their_file(tmp_path: Path) -> None:
    tensor = {"shape": ["batch", "hidden"], "dtype": "float32"}
    whole = {**DEFINITION, "inputs": {"x": tensor}, "outputs": {"y": tensor}}
    drawn = [
        {"uuid": f"w{batch}", "axes": {"batch": batch}, "inputs": {"x": {"type": "random"}}}
        for batch in range(1, 41)
    ]
    put(tmp_path, **{
        "L1/norm/definition.json": "\ufeff" + json.dumps(whole),
        "L1/norm/workload.jsonl": "\n".join(map(json.dumps, drawn)),
    })  # fmt: skip
    (problem,) = open_suite(tmp_path).problems
    assert (problem.labels.level, problem.labels.family) == (1, "")
    named = [one.name for one in problem.task.workloads]
    assert len(named) == MOST_WORKLOADS
    assert (named[0], named[-1]) == ("w1", "w38")


def test_levels_may_be_links_and_one_that_leads_back_is_not_followed_again(tmp_path: Path) -> None:
    data, suite = tmp_path / "data", tmp_path / "suite"
    put(data, **{"1_relu.py": "\ufeff" + REFERENCE})
    suite.mkdir()
    (suite / "level1").symlink_to(data)
    (data / "back").symlink_to(suite)
    found = open_suite(suite)
    assert names(found) == ["level1/1_relu"]
    assert found.problems[0].labels.level == 1


def test_a_linked_definition_finds_what_lies_beside_the_link(tmp_path: Path) -> None:
    tensor = {"shape": ["batch", "hidden"], "dtype": "float32"}
    whole = {**DEFINITION, "inputs": {"x": tensor}, "outputs": {"y": tensor}}
    one = {"uuid": "w", "axes": {"batch": 2}, "inputs": {"x": {"type": "random"}}}
    put(tmp_path, **{"blobs/a": json.dumps(whole), "blobs/b": json.dumps(one)})
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "norm.json").symlink_to(tmp_path / "blobs" / "a")
    (snapshot / "norm.jsonl").symlink_to(tmp_path / "blobs" / "b")
    (problem,) = open_suite(snapshot).problems
    assert [workload.name for workload in problem.task.workloads] == ["w"]


def test_task_files_without_a_name_are_named_by_their_path(tmp_path: Path) -> None:
    told = "reference: ../op.py\n"
    put(tmp_path, **{
        "op.py": REFERENCE, "gelu/task.yaml": told, "softmax/task.yaml": told,
        "named/task.yaml": f"name: mine\n{told}",
    })  # fmt: skip
    assert names(open_suite(tmp_path)) == ["gelu/task", "mine", "softmax/task"]


def test_a_name_that_is_no_text_is_listed_as_text(tmp_path: Path) -> None:
    put(tmp_path, **{"op.py": REFERENCE})
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("")
    (other,) = open_suite(tmp_path).others
    assert other.file == "caf\\udce9.txt"
    other.model_dump_json().encode("utf-8")
