"""Workloads and inputs in a task file: every form that is taken, and the line for every other."""

import json
from pathlib import Path

import pytest

from knowledge.errors import BadInput
from tools.task import MOST_WORKLOADS, Task, load_task
from tools.workload import InputSpec

REFERENCE = """\
import torch

ROWS, COLUMNS = 64, 32


class Model(torch.nn.Module):
    def forward(self, x):
        return x.relu()


def get_inputs():
    return [torch.randn(ROWS, COLUMNS)]
"""


def written(folder: Path, text: str) -> Path:
    (folder / "op.py").write_text(REFERENCE, encoding="utf-8")
    path = folder / "task.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(BadInput) as caught:
        load_task(written(folder, text))
    message = str(caught.value)
    assert "\n" not in message
    assert "task.yaml" in message
    return message


def test_workloads_of_a_file_are_values_for_its_constants(tmp_path: Path) -> None:
    text = "reference: op.py\nworkloads: [{ROWS: 8}, {name: wide, COLUMNS: 512}]\n"
    task = load_task(written(tmp_path, text))
    assert [(one.name, one.constants) for one in task.workloads] == [
        ("ROWS=8", {"ROWS": 8}),
        ("wide", {"COLUMNS": 512}),
    ]


def test_workloads_of_an_operator_are_sets_of_inputs(tmp_path: Path) -> None:
    text = "op: torch.relu\nworkloads: [inputs: [{shape: [4, 8]}], inputs: [{shape: [2]}]]\n"
    task = load_task(written(tmp_path, text))
    assert [one.name for one in task.workloads] == ["4x8", "2"]
    assert task.at(task.workloads[1]).workloads[0].inputs == (InputSpec(shape=(2,)),)


def test_inputs_may_have_names(tmp_path: Path) -> None:
    text = "op: x @ w\ninputs: {x: {shape: [4, 8]}, w: {shape: [8, 2], dtype: torch.float64}}\n"
    task = load_task(written(tmp_path, text))
    assert [(spec.name, spec.dtype) for spec in task.inputs] == [("x", "float32"), ("w", "float64")]


@pytest.mark.parametrize(
    "text",
    [
        "reference: op.py\nworkloads: [{ROWS: 8}, {name: wide, COLUMNS: 512}]\n",
        "op: x @ w\nworkloads: [inputs: {x: {shape: [4, 8]}, w: {shape: [8, 2], high: 1}}]\n",
        "op: torch.relu\ninputs: [{shape: [2], dtype: int8, low: -1, high: 1}]\n",
        "module: torch.nn:LayerNorm\narguments: {normalized_shape: 8}\ninputs: [{shape: [4, 8]}]\n",
    ],
)
def test_a_task_is_the_same_when_its_run_is_opened_again(tmp_path: Path, text: str) -> None:
    task = load_task(written(tmp_path, text))
    dumped = task.model_dump(mode="json", exclude_defaults=True)
    again = tmp_path / "again.yaml"
    again.write_text(json.dumps(dumped), encoding="utf-8")
    assert load_task(again) == task
    assert Task.model_validate_json(task.model_dump_json()) == task


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reference: op.py\nworkloads: [{ROWZ: 8}]\n", "no constant ROWZ at its top. Did you mean"),
        (
            "reference: op.py\nworkloads: [{ROWS: 8}, {ROWS: 8}]\n",
            'two workloads are called "ROWS=8"',
        ),
        ("reference: op.py\nworkloads: [big]\n", "workload big: give values for the file's own"),
        ("reference: op.py\nworkloads: [7]\n", "workloads.0"),
        ("reference: op.py\nworkloads: [{constants: 7}]\n", "workloads.0.constants"),
        ("reference: op.py\nworkloads: [{name: 7, ROWS: 2}]\n", "workloads.0.name"),
        (
            "reference: op.py\nworkloads: [inputs: [{shape: [2]}]]\n",
            "inputs belong to op and module",
        ),
        ("reference: op.py\nworkloads: w.jsonl\n", "a file of workloads goes with a definition"),
        ("op: torch.relu\nworkloads: [{shap: [2]}]\n", "workload shap=[2]: op needs inputs"),
        (
            "op: torch.relu\nworkloads: [{inputs: [{shape: [2]}], N: 3}]\n",
            "N is not a known key; it has name and inputs",
        ),
        (
            "op: torch.relu\ninputs: [{shape: [2]}]\nworkloads: [inputs: [{shape: [2]}]]\n",
            "give inputs, or workloads that have inputs each, not both",
        ),
        (
            "op: a + b\nworkloads:\n  - inputs: {a: {shape: [2]}, b: {shape: [2]}}\n"
            "  - inputs: {a: {shape: [3]}}\n",
            "workload 3: every workload has the inputs of the first: a, b",
        ),
        ("op: torch.relu\nworkloads: [inputs: [{shap: [2]}]]\n", 'Did you mean "shape"?'),
        ("op: torch.relu\ninputs: {self: {shape: [2]}}\n", 'an input can\'t be called "self"'),
        ("op: torch.relu\ninputs: {x y: {shape: [2]}}\n", 'an input can\'t be called "x y"'),
        ("op: torch.relu\ninputs: [{shape: [2], low: 1}]\n", "low needs high"),
        ("op: torch.relu\ninputs: [{shape: [2], low: 3, high: 2}]\n", "high 2 is not above low 3"),
        ("op: torch.relu\ninputs: [{shape: [2], high: 0}]\n", "high 0 is not above low 0"),
        (
            "op: torch.relu\ninputs: [{shape: [2], dtype: int64, high: 2.5}]\n",
            "needs whole numbers",
        ),
        ("op: torch.relu\ninputs: [{shape: [2], dtype: bool, high: 2}]\n", "mean nothing to dtype"),
        ("op: torch.relu(x\ninputs: {x: {shape: [2]}}\n", "neither a name nor an expression like"),
        (
            "op: torch.relu(y)\ninputs: {x: {shape: [2]}}\n",
            '"y" in the op is not an input; inputs: x',
        ),
        ('op: "(lambda: x)()"\ninputs: {x: {shape: [2]}}\n', "can't hold a lambda"),
        ("op: torch.relu; import os\ninputs: [{shape: [2]}]\n", "neither a name nor an expression"),
        ("op: torch.add(*[x, x])\ninputs: {x: {shape: [2]}}\n", "can't hold a star"),
        ("op: torch.add(**x)\ninputs: {x: {shape: [2]}}\n", "can't hold **"),
        ("op: x.__class__\ninputs: {x: {shape: [2]}}\n", '"__class__" is private'),
        ("op: x.add_(1)\ninputs: {x: {shape: [2]}}\n", '"add_" changes its tensor; use add'),
        (
            "op: x + 1\ninputs: {x: {shape: [2]}}\narguments: {a: 1}\n",
            "write them into the expression",
        ),
    ],
)
def test_a_mistake_is_one_line_that_says_where(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(tmp_path, text)


def test_more_workloads_than_can_be_judged_are_refused(tmp_path: Path) -> None:
    many = ", ".join(f"{{ROWS: {size}}}" for size in range(1, MOST_WORKLOADS + 2))
    assert "at most 16 are judged" in complaint(
        tmp_path, f"reference: op.py\nworkloads: [{many}]\n"
    )
