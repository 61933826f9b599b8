"""flashinfer-bench's schema (0.1.2), as it can be checked without that package."""

import ast
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

DTYPES = {
    "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1", "int64",
    "int32", "int16", "int8", "bool",
}  # fmt: skip
LANGUAGES = {"python", "triton", "cpp", "cuda", "tilelang"}


def is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def check_keys(value: Mapping[str, Any], needed: set[str], allowed: set[str]) -> None:
    assert needed <= set(value) <= needed | allowed, sorted(value)


def check_definition(value: Mapping[str, Any]) -> None:
    needed = {"name", "op_type", "axes", "inputs", "outputs", "reference"}
    check_keys(value, needed, {"tags", "description", "constraints"})
    assert all(is_text(value[key]) for key in ("name", "op_type", "reference"))
    for name, axis in value["axes"].items():
        assert is_text(name)
        if axis["type"] == "const":
            check_keys(axis, {"type", "value"}, {"description"})
            assert type(axis["value"]) is int
            assert axis["value"] >= 0
        else:
            assert axis["type"] == "var"
            check_keys(axis, {"type"}, {"description"})
    tensors = {**value["inputs"], **value["outputs"]}
    assert len(tensors) == len(value["inputs"]) + len(value["outputs"])
    for name, spec in tensors.items():
        assert is_text(name)
        check_keys(spec, {"shape", "dtype"}, {"description"})
        assert spec["dtype"] in DTYPES
        assert spec["shape"] is None or set(spec["shape"]) <= set(value["axes"])
    body = ast.parse(value["reference"]).body
    (run,) = (node for node in body if isinstance(node, ast.FunctionDef) and node.name == "run")
    assert [argument.arg for argument in run.args.args] == list(value["inputs"])


def check_workload(value: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
    """A line of a file of workloads: a trace without solution and evaluation."""
    check_keys(value, {"definition", "workload"}, {"solution", "evaluation"})
    assert value["definition"] == definition["name"]
    assert value.get("solution") is None
    assert value.get("evaluation") is None
    workload = value["workload"]
    check_keys(workload, {"axes", "inputs", "uuid"}, set())
    assert is_text(workload["uuid"])
    variable = {name for name, axis in definition["axes"].items() if axis["type"] == "var"}
    assert set(workload["axes"]) == variable
    assert all(type(size) is int and size >= 0 for size in workload["axes"].values())
    assert set(workload["inputs"]) == set(definition["inputs"])
    fields = {"random": set(), "scalar": {"value"}, "safetensors": {"path", "tensor_key"}}
    for name, given in workload["inputs"].items():
        check_keys(given, {"type"} | fields[given["type"]], set())
        assert (given["type"] == "scalar") == (definition["inputs"][name]["shape"] is None)


def check_solution(value: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
    needed = {"name", "definition", "author", "spec", "sources"}
    check_keys(value, needed, {"description"})
    assert value["definition"] == definition["name"]
    assert is_text(value["name"])
    assert is_text(value["author"])
    spec = value["spec"]
    check_keys(
        spec, {"language", "target_hardware", "entry_point"},
        {"dependencies", "destination_passing_style", "binding"},
    )  # fmt: skip
    assert spec["language"] in LANGUAGES
    assert spec["target_hardware"]
    assert all(map(is_text, spec["target_hardware"]))
    sources = {source["path"]: source["content"] for source in value["sources"]}
    assert len(sources) == len(value["sources"])
    for path, content in sources.items():
        assert not PurePosixPath(path).is_absolute()
        assert ".." not in PurePosixPath(path).parts
        assert is_text(content)
        ast.parse(content)
    file, symbol = spec["entry_point"].split("::")
    assert symbol in {
        node.name for node in ast.parse(sources[file]).body if isinstance(node, ast.FunctionDef)
    }
