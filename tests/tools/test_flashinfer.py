"""The data set keeps flashinfer-bench's schema, and both of its functions compute the op."""

import importlib
import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from knowledge.errors import BadInput
from tests.tools.flashinfer_schema import check_definition, check_solution, check_workload
from tests.tools.shipping import norm_shipment, shipment
from tools.candidate import Candidate
from tools.export import Shipment
from tools.flashinfer import write_flashinfer
from tools.signature import Signature, Slot

_serial = itertools.count()

LOOKUP_REFERENCE = """
import torch

class Model(torch.nn.Module):
    def __init__(self, words, width, scale=1.0):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Embedding(words, width))

    def forward(self, rows, by):
        return self.layers(rows) * by, rows + 1

def get_inputs():
    return [torch.randint(0, 50, (6, 7)), 0.5]

def get_init_inputs():
    return [[50, 40], {"scale": 2.0}]
"""
LOOKUP = Signature(
    device="cpu",
    inputs=(Slot(dtype="int64", sizes=("n", 7)),),
    sizes={"n": (1, 7)},
    layout="any",
    aligned=False,
)
EXACT_LOOKUP = LOOKUP.model_copy(
    update={
        "sizes": {}, "inputs": (Slot(dtype="int64", sizes=(6, 7)),),
        "outputs": (Slot(dtype="float32", sizes=(6, 7, 40)), Slot(dtype="int64", sizes=(6, 7))),
    }
)  # fmt: skip


def lookup() -> Shipment:
    # Not the reference's own words, which would be the op as it was given.
    kernel = LOOKUP_REFERENCE.replace("Model(", "ModelNew(").replace(
        "return self.layers(rows) * by, rows + 1",
        "found = self.layers(rows)\n        return found * by, 1 + rows",
    )
    return shipment(
        candidate=Candidate(source=kernel, backend="torch"), reference=LOOKUP_REFERENCE,
        subject="Look-up", signatures=(LOOKUP, EXACT_LOOKUP), returns="tuple",
    )  # fmt: skip


def beside() -> Shipment:
    """The same, which returns None between its tensors."""
    usual = lookup()
    source = usual.candidate.source.replace("by, 1", "by, None, 1")
    return usual.model_copy(
        update={
            "candidate": Candidate(source=source, backend="torch"),
            "reference": LOOKUP_REFERENCE.replace("by, rows", "by, None, rows"),
            "returns": None,
        }
    )


class Written:
    """What was written for an op."""

    def __init__(self, what: Shipment, parent: Path) -> None:
        self.folder = write_flashinfer(what, parent, "embedding")
        self.definition = self._only("definitions/embedding/*.json")
        self.solution = self._only("solutions/kernelwright/embedding/*/*.json")
        (self.lines,) = self.folder.glob("workloads/embedding/*.jsonl")
        self.workload = json.loads(self.lines.read_text(encoding="utf-8"))

    def _only(self, pattern: str) -> dict[str, Any]:
        (file,) = self.folder.glob(pattern)
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def arguments(self, rows: int) -> list[Any]:
        """As flashinfer-bench makes them: by the definition's order, for so many rows."""
        sizes = {
            name: axis["value"] if axis["type"] == "const" else rows
            for name, axis in self.definition["axes"].items()
        }
        made: list[Any] = []
        for name, spec in self.definition["inputs"].items():
            given = self.workload["workload"]["inputs"][name]
            if given["type"] == "scalar":
                made.append(given["value"])
            elif given["type"] == "safetensors" and rows in spec["shape"]:
                made.append(load_file(self.folder / given["path"])[given["tensor_key"]])
            else:
                shape = [sizes[axis] for axis in spec["shape"]]
                is_float = "float" in spec["dtype"]
                dtype = getattr(torch, spec["dtype"])
                drawn = torch.randn(shape) if is_float else torch.randint(0, 50, shape)
                made.append(drawn.to(dtype))
        return made

    def functions(self, parent: Path) -> tuple[Any, Any]:
        """The reference's `run` and the solution's, loaded as flashinfer-bench loads Python."""
        package = f"flashinfer_set_{next(_serial)}"
        sources = [*self.solution["sources"],
                   {"path": "definition.py", "content": self.definition["reference"]}]  # fmt: skip
        for source in sources:
            file = parent / package / source["path"]
            file.parent.mkdir(exist_ok=True)
            file.write_text(source["content"], encoding="utf-8")
        sys.path.insert(0, str(parent))
        try:
            modules = [importlib.import_module(f"{package}.{n}") for n in ("definition", "main")]
        finally:
            sys.path.remove(str(parent))
        return modules[0].run, modules[1].run


@pytest.mark.parametrize("make", [shipment, lookup, beside])
def test_the_set_keeps_the_schema(make: Any, tmp_path: Path) -> None:
    made = Written(make(), tmp_path)
    check_definition(made.definition)
    check_workload(made.workload, made.definition)
    check_solution(made.solution, made.definition)


@pytest.mark.parametrize(("make", "rows"), [(shipment, 9), (shipment, 4), (lookup, 3), (beside, 3)])
def test_reference_and_solution_compute_the_same(make: Any, rows: int, tmp_path: Path) -> None:
    made = Written(make(), tmp_path)
    reference, solution = made.functions(tmp_path)
    for _ in range(2):  # other weights the second time
        arguments = made.arguments(rows)
        expected, found = reference(*arguments), solution(*arguments)
        torch.testing.assert_close(found, expected)
        outputs = expected if isinstance(expected, tuple) else (expected,)
        for output, spec in zip(outputs, made.definition["outputs"].values(), strict=True):
            axes = made.definition["axes"]
            sizes = [axes[axis].get("value", rows) for axis in spec["shape"]]
            assert list(output.shape) == sizes
            assert str(output.dtype) == f"torch.{spec['dtype']}"


def test_a_weight_may_be_called_what_python_keeps_for_itself(tmp_path: Path) -> None:
    def renamed(text: str) -> str:
        return text.replace("self.shift", "self.Lambda")

    usual = shipment()
    kernel = usual.candidate.model_copy(update={"source": renamed(usual.candidate.source)})
    made = Written(shipment(reference=renamed(usual.reference), candidate=kernel), tmp_path)
    reference, solution = made.functions(tmp_path)
    arguments = made.arguments(9)
    torch.testing.assert_close(solution(*arguments), reference(*arguments))


def test_weights_are_arguments_and_sizes_that_vary_have_an_axis(tmp_path: Path) -> None:
    made = Written(lookup(), tmp_path)
    definition = made.definition
    assert list(definition["inputs"]) == ["rows", "by", "layers_0_weight"]
    assert definition["inputs"]["rows"]["shape"] == ["n", "size_7"]
    assert definition["outputs"]["output_0"]["shape"] == ["n", "size_7", "size_40"]
    assert definition["inputs"]["by"] == {"shape": None, "dtype": "float32"}
    assert made.workload["workload"]["axes"] == {"n": 6}


def test_values_that_random_ones_can_not_stand_in_for_go_along(tmp_path: Path) -> None:
    made = Written(lookup(), tmp_path)
    given = made.workload["workload"]["inputs"]
    assert given["by"] == {"type": "scalar", "value": 0.5}
    assert given["layers_0_weight"] == {"type": "random"}
    kept = load_file(made.folder / given["rows"]["path"])[given["rows"]["tensor_key"]]
    assert kept.shape == (6, 7)
    assert 0 <= int(kept.min()) <= int(kept.max()) < 50


def test_what_the_schema_has_no_form_for_gets_a_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"changes norm\.running_mean"):
        write_flashinfer(norm_shipment(), tmp_path, "norm")
    double = shipment(reference=shipment().reference.replace("(9, 5)", "(9, 5).double()"))
    with pytest.raises(BadInput, match="float64 is no dtype of that schema"):
        write_flashinfer(double, tmp_path, "scale")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def their_models(monkeypatch: pytest.MonkeyPatch) -> Any:
    """flashinfer-bench's data modules, without the kernels that the rest of it needs."""
    spec = importlib.util.find_spec("flashinfer_bench")
    if spec is None:
        pytest.skip("flashinfer-bench is not installed")
    package = ModuleType("flashinfer_bench")
    package.__path__ = list(spec.submodule_search_locations or ())
    monkeypatch.setitem(sys.modules, "flashinfer_bench", package)
    return importlib.import_module("flashinfer_bench.data.trace_set")


def test_flashinfer_benchs_own_models_take_the_set(their_models: Any, tmp_path: Path) -> None:
    made = Written(lookup(), tmp_path)
    found = their_models.TraceSet.from_path(str(made.folder))
    (definition,) = found.definitions.values()
    assert definition.get_input_shapes({"n": 6}) == [[6, 7], None, [50, 40]]
    assert len(found.workloads[definition.name]) == len(found.solutions[definition.name]) == 1
