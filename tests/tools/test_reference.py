"""Loading references: what the convention allows, and the line that a broken one gets."""

import inspect
import sys
from pathlib import Path

import pytest
import torch

from knowledge.errors import BadInput
from tools.materialise import materialise
from tools.reference import LoadedReference, load, tensors_of
from tools.task import InputSpec, Task

GOOD = """
import torch

class Model(torch.nn.Module):
    def __init__(self, features, bias=True):
        super().__init__()
        self.linear = torch.nn.Linear(features, 3, bias=bias)

    def forward(self, x):
        return self.linear(x)

def get_inputs():
    return [torch.randn(4, 5)]

def get_init_inputs():
    return [5]
"""


def called(source: str) -> object:
    loaded = load(source, "op.py")
    return loaded.run(loaded.build(0), loaded.inputs(0))


def complaint(source: str) -> str:
    with pytest.raises(BadInput) as caught:
        called(source)
    message = str(caught.value)
    assert message.startswith("op.py: ")
    assert "\n" not in message
    return message


def test_weights_and_inputs_follow_the_seed() -> None:
    loaded = load(GOOD, "op.py")
    first, again, other = loaded.build(1), loaded.build(1), loaded.build(2)
    assert torch.equal(first.linear.weight, again.linear.weight)
    assert not torch.equal(first.linear.weight, other.linear.weight)
    assert torch.equal(loaded.inputs(7)[0], loaded.inputs(7)[0])
    assert not torch.equal(loaded.inputs(7)[0], loaded.inputs(8)[0])


@pytest.mark.parametrize(
    ("returned", "bias"),
    [
        ("[5]", True),
        ("(5, False)", False),
        ("{'features': 5, 'bias': False}", False),
        ("[[5], {'bias': False}]", False),
        ("[[], {'features': 5, 'bias': False}]", False),
    ],
)
def test_constructor_arguments_come_in_any_shape_the_field_uses(returned: str, bias: bool) -> None:
    model = load(GOOD.replace("return [5]", f"return {returned}"), "op.py").build(0)
    assert (model.linear.bias is not None) is bias


def test_a_list_and_a_dict_stay_positional_where_the_constructor_wants_them_so() -> None:
    source = """
import torch
class Model(torch.nn.Module):
    def __init__(self, sizes, options):
        super().__init__()
        self.sizes, self.options = sizes, options
    def forward(self, x):
        return x + len(self.sizes) + self.options["more"]
def get_inputs():
    return [torch.zeros(2)]
def get_init_inputs():
    return [[1, 2, 3], {"more": 4}]
"""
    assert called(source).tolist() == [7.0, 7.0]


def test_get_init_inputs_may_be_missing_and_inputs_may_be_one_tensor() -> None:
    source = """
import torch
class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2
def get_inputs():
    return torch.ones(2)
"""
    assert called(source).tolist() == [2.0, 2.0]


def test_a_loaded_reference_is_a_real_module_with_a_file() -> None:
    loaded = load(GOOD, "op.py")
    assert sys.modules[loaded.module.__name__] is loaded.module
    assert "self.linear(x)" in inspect.getsource(loaded.module.Model)
    assert load(GOOD, "op.py").module is not loaded.module


def test_what_a_reference_prints_goes_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    called("print('loading')\n" + GOOD.replace("return self.linear(x)", "print(x); return x"))
    assert capsys.readouterr().out == ""


def test_a_reference_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_op.py").write_text("FEATURES = 5\n", encoding="utf-8")
    path = tmp_path / "op.py"
    source = "from neighbour_of_op import FEATURES\n" + GOOD.replace("[5]", "[FEATURES]")
    path.write_text(source, encoding="utf-8")
    before = list(sys.path)
    assert load(source, str(path)).build(0).linear.in_features == 5
    assert sys.path == before


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def broken(:\n", "is not Python: invalid syntax on line 1."),
        ("import torch\n\nraise ValueError('no\\nluck')\n", "on line 3: ValueError: no luck"),
        ("import no_such_package_at_all\n", "ModuleNotFoundError: No module named"),
        ("import sys\nsys.exit(0)\n", "import raises on line 2: SystemExit"),
        (GOOD.replace("class Model(", "class Net("), "has no class Model. Rename class Net to"),
        ("x = 1\n", "has no class Model. A reference defines"),
        ("class Model:\n    pass\n", "is not a torch.nn.Module"),
        (GOOD.replace("get_inputs", "inputs"), "has no get_inputs()"),
        (GOOD.replace("[5]", "[5, True, 1]"), "Model's constructor raises: TypeError"),
        (GOOD.replace("[5]", "['five']"), "Model's constructor raises on line 7"),
        (GOOD.replace("[5]", "7"), "get_init_inputs() returns a int"),
        (GOOD.replace("[torch.randn(4, 5)]", "[]"), "get_inputs() returns no list"),
        (GOOD.replace("torch.randn(4, 5)", "1 / 0"), "get_inputs() raises on line 13: ZeroDiv"),
        (GOOD.replace("randn(4, 5)", "randn(4, 6)"), "(4x6 and 5x3)"),
        (GOOD.replace("return self.linear(x)", "return 3.0"), "returns no tensor"),
        (GOOD.replace("return self.linear(x)", "return x[:0]"), "or only empty ones"),
    ],
)
def test_a_broken_reference_is_one_line_that_names_the_line(source: str, said: str) -> None:
    assert said in complaint(source)


def test_a_reference_that_failed_leaves_no_module_behind() -> None:
    before = set(sys.modules)
    with pytest.raises(BadInput):
        load("raise RuntimeError\n", "op.py")
    assert set(sys.modules) == before


def test_outputs_are_found_however_they_are_packed() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert tensors_of((a, {"x": [b, 3]})) == (a, b)


def subject(**keys: object) -> LoadedReference:
    return load(materialise(Task.model_validate({"name": "t", **keys})), "t")


def test_an_operator_is_written_out_with_its_arguments() -> None:
    loaded = subject(
        op="torch.nn.functional.gelu", inputs=[{"shape": [3, 4]}], arguments={"approximate": "tanh"}
    )
    x = loaded.inputs(0)[0]
    returned = loaded.run(loaded.build(0), (x,))
    assert torch.equal(returned, torch.nn.functional.gelu(x, approximate="tanh"))


def test_a_module_is_constructed_with_its_arguments() -> None:
    loaded = subject(
        module="torch.nn:LayerNorm", inputs=[{"shape": [3, 4]}], arguments={"normalized_shape": [4]}
    )
    model = loaded.build(0)
    assert isinstance(model, torch.nn.LayerNorm)
    assert loaded.init_arguments(0) == ((), {})
    assert loaded.run(model, loaded.inputs(0)).shape == (3, 4)


def test_generated_inputs_have_the_kind_that_was_asked_for() -> None:
    specs = (
        InputSpec(shape=(64,), dtype="int32", high=3),
        InputSpec(shape=(64,), dtype="bool"),
        InputSpec(shape=(64,), dtype="float64", high=2),
        InputSpec(shape=(), dtype="bfloat16"),
    )
    whole, flag, uniform, scalar = subject(op="torch.stack", inputs=specs).inputs(3)
    assert (whole.dtype, flag.dtype) == (torch.int32, torch.bool)
    assert set(whole.tolist()) == {0, 1, 2}
    assert uniform.dtype == torch.float64
    assert 0 <= uniform.min() < 1 < uniform.max() < 2
    assert (scalar.shape, scalar.dtype) == ((), torch.bfloat16)


def test_a_dtype_among_the_arguments_becomes_a_dtype() -> None:
    loaded = subject(
        op="torch.sum", inputs=[{"shape": [3]}], arguments={"dim": 0, "dtype": "torch.float64"}
    )
    assert loaded.run(loaded.build(0), loaded.inputs(0)).dtype == torch.float64


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"op": "torch.nn.functional.gleu"}, 'has no gleu. Did you mean "glu"?'),
        ({"op": "tocrh.relu"}, 'there is no module tocrh. Did you mean "torch"?'),
        ({"op": "torch.nn.GELU"}, "is a class. Write module: torch.nn:GELU"),
        ({"op": "torch.pi"}, "cannot be called"),
        ({"module": "torch.nn:LayerNrom"}, 'Did you mean "LayerNorm"?'),
        ({"module": "torch.nn.LayerNorm"}, "For example: torch.nn:LayerNorm"),
        ({"module": "torch.nn:Parameter"}, "is not a torch.nn.Module class"),
        ({"module": "no_such_package_at_all:Net"}, "Is it installed here?"),
    ],
)
def test_a_name_that_does_not_exist_is_one_line(keys: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        subject(**keys, inputs=[{"shape": [2]}])
    assert said in str(caught.value)
    assert str(caught.value).startswith("t: ")


def test_an_unreadable_reference_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "op.py"
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(BadInput, match="cannot be read"):
        materialise(Task(name="t", reference=path))
