"""Definitions in the flashinfer-bench schema: read, checked, and written out as references."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from knowledge.errors import BadInput
from tools.definition import load_definition, reckon
from tools.materialise import materialise
from tools.reference import load
from tools.task import Task, load_task

RUN = """\
import torch


def run(x, w, scale, mask):
    return (x @ w) * scale, mask.sum(-1)
"""
DEFINITION: dict[str, Any] = {
    "name": "scaled_product",
    "op_type": "gemm",
    "hf_id": "an/unread-key",
    "axes": {
        "M": {"type": "var"},
        "N": {"type": "const", "value": 3, "description": "columns"},
        "K": {"type": "const", "value": 8},
        "M2": {"type": "expr", "expression": "2 * M"},
    },
    "constraints": ["M % 4 == 0", "K > N", "mask.sum() > 0"],
    "inputs": {
        "x": {"shape": ["M", "K"], "dtype": "float32"},
        "w": {"shape": ["K", "N"], "dtype": "float32"},
        "scale": {"shape": None, "dtype": "float32"},
        "mask": {"shape": ["M2", "K"], "dtype": "int32"},
    },
    "outputs": {
        "y": {"shape": ["M", "N"], "dtype": "float32"},
        "counts": {"shape": ["M2"], "dtype": "int64"},
    },
    "reference": RUN,
}
WORKLOAD: dict[str, Any] = {
    "uuid": "w1",
    "axes": {"M": 4},
    "inputs": {"x": {"type": "random"}, "scale": {"type": "scalar", "value": 0.5}},
}


def written(folder: Path, definition: object, workloads: object = "w.jsonl") -> Path:
    (folder / "op.json").write_text(json.dumps(definition), encoding="utf-8")
    lines = [WORKLOAD, {"definition": "scaled_product", "workload": {**WORKLOAD, "uuid": "w2"}}]
    lines.append({"definition": "another", "workload": {"axes": {}}})
    text = "\n".join(map(json.dumps, lines)) + "\n\n"
    (folder / "w.jsonl").write_text(text, encoding="utf-8")
    task = {"definition": "op.json"} | ({"workloads": workloads} if workloads is not None else {})
    path = folder / "task.yaml"
    path.write_text(json.dumps(task), encoding="utf-8")
    return path


def with_change(path: str, value: object, document: dict[str, Any] = DEFINITION) -> dict[str, Any]:
    changed: dict[str, Any] = copy.deepcopy(document)
    *keys, last = path.split(".")
    inner = changed
    for key in keys:
        inner = inner[key]
    inner[last] = value
    return changed


def outputs_of(task: Task) -> tuple[list[Any], Any]:
    loaded = load(materialise(task), "op.json")
    inputs = loaded.inputs(0)
    return list(inputs), loaded.run(loaded.build(0), inputs)


def test_a_definition_becomes_a_reference_that_runs(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, DEFINITION))
    assert [one.name for one in task.workloads] == ["w1", "w2"]
    (x, w, scale, mask), (y, counts) = outputs_of(task)
    assert (x.shape, w.shape, scale) == ((4, 8), (8, 3), 0.5)
    assert (mask.shape, mask.dtype) == ((8, 8), torch.int32)
    assert torch.equal(y, (x @ w) * 0.5)
    assert torch.equal(counts, mask.sum(-1))


def test_outputs_by_name_come_in_the_definitions_order(tmp_path: Path) -> None:
    run = "def run(x, w, scale, mask):\n    return {'counts': mask.sum(-1), 'y': x @ w}\n"
    task = load_task(written(tmp_path, with_change("reference", run)))
    (x, w, _, mask), (y, counts) = outputs_of(task)
    assert torch.equal(y, x @ w)
    assert torch.equal(counts, mask.sum(-1))


def test_an_import_from_the_future_stays_first(tmp_path: Path) -> None:
    run = f"from __future__ import annotations\n{RUN.replace('import torch', '')}"
    outputs_of(load_task(written(tmp_path, with_change("reference", run))))


def test_workloads_may_be_chosen_from_a_file_or_written_down(tmp_path: Path) -> None:
    chosen = load_task(written(tmp_path, DEFINITION, {"file": "w.jsonl", "only": ["w2"]}))
    assert [one.name for one in chosen.workloads] == ["w2"]
    inline = load_task(written(tmp_path, DEFINITION, [{"axes": {"M": 8}}, {"axes": {"M": 4}}]))
    assert [one.name for one in inline.workloads] == ["M=8", "M=4"]


def test_what_a_workload_does_not_give_is_drawn(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, DEFINITION, [{"axes": {"M": 4}}]))
    (_, _, scale, _), _ = outputs_of(task)
    assert isinstance(scale, float)


def test_a_definition_of_const_axes_alone_needs_no_workload(tmp_path: Path) -> None:
    definition = with_change("axes.M", {"type": "const", "value": 4})
    (x, *_), _ = outputs_of(load_task(written(tmp_path, definition, None)))
    assert x.shape == (4, 8)


def test_a_tensor_from_a_file_is_found_above_the_workloads_and_kept(tmp_path: Path) -> None:
    tensor = torch.arange(24, dtype=torch.float32).reshape(8, 3)
    (tmp_path / "blob").mkdir()
    save_file({"weights": tensor}, tmp_path / "blob" / "w.safetensors")
    given = {"type": "safetensors", "path": "blob/w.safetensors", "tensor_key": "weights"}
    (tmp_path / "lower").mkdir()
    path = written(tmp_path / "lower", DEFINITION, [with_change("inputs.w", given, WORKLOAD)])
    task = load_task(path)
    (_, w, *_), _ = outputs_of(task)
    assert torch.equal(w, tensor)
    dumped = tmp_path / "again.yaml"
    dumped.write_text(json.dumps(task.model_dump(mode="json", exclude_defaults=True)))
    assert load_task(dumped).workloads == task.workloads


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("axes.M", {"type": "vaar"}, "axes.M: Input tag 'vaar'"),
        ("axes.N.value", 0, "axes.N.value: Input should be greater than or equal to 1"),
        ("inputs.x.shape", ["M", "Q"], 'x has an axis "Q" that axes don\'t define'),
        ("inputs.x.dtype", "float33", 'inputs.x.dtype: dtype "float33" is unknown'),
        ("inputs.x.dtype", "float8_e4m3fn", "float8_e4m3fn can't be judged yet"),
        ("inputs.y", {"shape": ["M"], "dtype": "float32"}, "y is an input and an output"),
        ("inputs.class", {"shape": ["M"], "dtype": "float32"}, '"class" can\'t be the name'),
        ("inputs", {}, "inputs: "),
        ("outputs", {}, "outputs: "),
        ("reference", "def run(:", "the reference is not Python"),
        ("reference", "def forward(x): ...", "defines no function run at its top"),
        ("reference", RUN + "class Model: ...\n", "the reference defines Model"),
        ("reference", "def run(x): ...", "run takes 1 arguments, and there are 4 inputs"),
        ("constraints", ["M ="], "`M =` is not an expression"),
        ("constraints", ["M > 100"], "the constraint `M > 100` does not hold for N=3, K=8, M=4"),
        ("axes.M2.expression", "Q + 1", "axis M2: `Q + 1` can't be reckoned"),
        ("axes.M2.expression", "M - 4", "axis M2 is 0; sizes are 1 and more"),
    ],
)
def test_a_broken_definition_is_one_line(
    tmp_path: Path, path: str, value: object, said: str
) -> None:
    assert said in complaint(written(tmp_path, with_change(path, value)))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("axes", {}, "axis M has no value"),
        ("axes.Q", 3, "Q is no var axis; they are M"),
        ("axes.M", 6, "the constraint `M % 4 == 0` does not hold"),
        ("inputs.z", {"type": "random"}, "z is no input; they are x, w, scale, mask"),
        ("inputs.z", {"type": "custom"}, "Input tag 'custom'"),
        ("inputs.w", {"type": "scalar", "value": 1}, "w is a tensor of K, N, and is given as a"),
        ("inputs.scale.value", "many", "inputs"),
        (
            "inputs.scale", {"type": "safetensors", "path": "t.st", "tensor_key": "w"},
            "scale is a plain number, and is given as a tensor of a file",
        ),
        ("inputs.w", {"type": "safetensors", "path": "no.st", "tensor_key": "w"}, "does not exist"),
        ("inputs.w", {"type": "safetensors", "path": "op.json", "tensor_key": "w"}, "be read"),
        ("inputs.w", {"type": "safetensors", "path": "t.st", "tensor_key": "q"}, "It has short"),
        (
            "inputs.w", {"type": "safetensors", "path": "t.st", "tensor_key": "short"},
            "w should be [8, 3]; short is [2]",
        ),
        (
            "inputs.w", {"type": "safetensors", "path": "t.st", "tensor_key": "w16"},
            "w should be float32; w16 is F16",
        ),
    ],
)  # fmt: skip
def test_a_workload_that_does_not_fit_is_one_line(
    tmp_path: Path, path: str, value: object, said: str
) -> None:
    tensors = {"short": torch.zeros(2), "w16": torch.zeros(8, 3, dtype=torch.float16)}
    save_file(tensors, tmp_path / "t.st")
    assert said in complaint(written(tmp_path, DEFINITION, [with_change(path, value, WORKLOAD)]))


@pytest.mark.parametrize(
    ("workloads", "said"),
    [
        (None, "axis M of scaled_product has no size. For example: workloads: [{axes: {M: 1024}}]"),
        ("none.jsonl", "none.jsonl does not exist"),
        ("op.json", "is not JSON on line 1"),
        ({"file": "w.jsonl", "only": ["w9"]}, 'w.jsonl has no workload "w9"'),
        ({"file": "w.jsonl", "onli": []}, "workloads.onli: is not a known key. Known: file, only."),
        ({"file": "w.jsonl", "only": "w1"}, "only a list of uuids"),
        ([{"axes": {"M": 4}, "N": 3}], "N is not a key of a definition's workload"),
    ],
)
def test_wrong_ways_to_name_workloads_are_one_line(
    tmp_path: Path, workloads: object, said: str
) -> None:
    path = written(tmp_path, DEFINITION, workloads)
    (tmp_path / "op.json").write_text(json.dumps(DEFINITION, indent=1), encoding="utf-8")
    assert said in complaint(path)


def complaint(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        load_task(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_without_workloads_of_this_definition_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, with_change("name", "third"))
    text = json.dumps({"definition": "another", "workload": WORKLOAD})
    (tmp_path / "w.jsonl").write_text(text, encoding="utf-8")
    assert "holds no workload of third" in complaint(path)
    (tmp_path / "w.jsonl").write_text('{"uuid": "a"}\n', encoding="utf-8")
    assert "line 1 is not a workload: it has no axes" in complaint(path)


def test_a_definition_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load_definition(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(BadInput, match=r"list\.json: .+"):
        load_definition(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 * M + 1", 9.0),
        ("M // 3 == 1 and not M > 4", 1.0),
        ("max(M, 7) - 1", 6.0),
        ("0 < M <= 4", 1.0),
        ("Q", None),
        ("M / 0", None),
        ("x.shape[0] == M", None),
        ("__import__('os').getpid()", None),
        ("M **", None),
    ],
)
def test_only_arithmetic_on_sizes_is_reckoned(text: str, value: float | None) -> None:
    assert reckon(text, {"M": 4}) == value
