"""An op as an expression, and a module's own forward, as references that run."""

from pathlib import Path

import pytest
import torch

from knowledge.errors import BadInput
from knowledge.reference_source import read_reference
from tools.materialise import materialise, packages_of
from tools.reference import LoadedReference, load
from tools.task import InputSpec, Task, parse_task

TWICE = """import torch

N = 4


class Twice(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def get_inputs():
    return [torch.ones(N)]
"""
X_AND_W = {"x": {"shape": [4, 8]}, "w": {"shape": [8, 3]}}


def task_of(**keys: object) -> Task:
    return Task.model_validate({"name": "t", **keys})


def loaded(**keys: object) -> LoadedReference:
    return load(materialise(task_of(**keys)), "t")


def test_an_expression_computes_what_it_says() -> None:
    reference = loaded(op="torch.softmax(x @ w, -1)", inputs=X_AND_W)
    x, w = reference.inputs(0)
    assert torch.equal(reference.run(reference.build(0), (x, w)), torch.softmax(x @ w, -1))


@pytest.mark.parametrize(
    "op",
    [
        "x.view(2, 2, -1).transpose(1, 2)[..., 1:] * math.sqrt(2.0)",
        "torch.max(x, 1).values",
        "x.T",
        "torch.nn.functional.gelu(x @ w, approximate='tanh')",
        "torch.einsum('ij,jk->k', x, w)",
        "x.to(torch.bfloat16) / (x.abs().sum(-1, keepdim=True) + 1e-6)",
        "torch.where(x > 0, x, torch.special.expit(x))",
        "torch.linalg.norm(x, dim=-1)",
    ],
)
def test_an_expression_may_be_of_any_shape(op: str) -> None:
    reference = loaded(op=op, inputs=X_AND_W)
    reference.run(reference.build(0), reference.inputs(0))


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ("torch.sotfmax(x, -1) + w", 'has no sotfmax. Did you mean "softmax"?'),
        ("x.softmx(-1) + w", 'a tensor has no softmx. Did you mean "softmax"?'),
        ("x.numpy() + w", ".numpy leaves the tensors"),
        ("torch.load(x) + w", "torch.load is not a function of tensors"),
        ("torch.from_file(x) + w", "torch.from_file is not a function of tensors"),
        ("torch.hub.load(x, w)", "torch.hub.load is not a function of tensors"),
        ("torch.os.system(x) + w", "torch.os.system is not a function of tensors"),
        ("torch.nn.GELU()(x) + w", "torch.nn.GELU is a class. Write module: torch.nn:GELU"),
        ("torch.compile(x) + w", "torch.compile is not a function of tensors"),
        ("torch(x) + w", "torch alone is a module"),
        ("math.sqrtt(2) * x + w", 'Did you mean "sqrt"?'),
    ],
)
def test_what_does_more_than_compute_is_one_line(op: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        loaded(op=op, inputs=X_AND_W)
    assert said in str(caught.value)
    assert str(caught.value).startswith("t: op: ")


def test_inputs_are_drawn_from_their_range() -> None:
    specs = (
        InputSpec(shape=(256,), low=-3, high=-1),
        InputSpec(shape=(256,), dtype="int8", low=-2, high=1),
        InputSpec(shape=(256,), dtype="float16", high=0.5),
    )
    floats, whole, half = loaded(op="torch.stack", inputs=specs).inputs(0)
    assert -3 <= floats.min() < -2 < floats.max() < -1
    assert set(whole.tolist()) == {-2, -1, 0}
    assert 0 <= half.min() < half.max() <= 0.5


def test_a_modules_forward_is_written_out_so_that_a_kernel_can_take_its_place() -> None:
    keys = {"module": "torch.nn:LayerNorm", "arguments": {"normalized_shape": 8}}
    source = materialise(task_of(**keys, inputs=[{"shape": [4, 8]}]))
    assert read_reference(source).arguments == ("input_0",)
    reference = load(source, "t")
    model, (x,) = reference.build(0), reference.inputs(0)
    assert torch.equal(reference.run(model, (x,)), torch.nn.functional.layer_norm(x, (8,)))


def test_a_package_that_is_not_installed_is_known_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gated_layers").mkdir()
    (tmp_path / "gated_layers" / "__init__.py").write_text("")
    (tmp_path / "gated_layers" / "norms.py").write_text(TWICE)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = task_of(module="gated_layers.norms:Twice", inputs=[{"shape": [2]}])
    materialise(own)
    assert packages_of(own) == (str(tmp_path / "gated_layers"),)
    theirs = task_of(module="torch.nn:GELU", inputs=[{"shape": [2]}])
    materialise(theirs)
    assert packages_of(theirs) == ()
    assert packages_of(task_of(op="x + 1", inputs={"x": {"shape": [2]}})) == ()


def test_the_first_workload_is_the_one_written_out(tmp_path: Path) -> None:
    (tmp_path / "op.py").write_text(TWICE.replace("Twice", "Model"))
    raw = {"reference": "op.py", "workloads": [{"N": 7}, {"N": 9}]}
    task = parse_task(raw, "t.yaml", tmp_path)
    sizes = [
        len(load(materialise(one), "t").inputs(0)[0]) for one in (task, task.at(task.workloads[1]))
    ]
    assert sizes == [7, 9]
