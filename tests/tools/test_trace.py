"""From a live module to plain data."""

import pytest
import torch
import torch.nn.functional as F

from knowledge.opgraph import OpGraph, Ref
from tools.reference import load, plain_tensors
from tools.trace import Untraceable, trace

HEAD = "import types\n\nimport torch\nimport torch.nn.functional as F\n\n"
FOOT = "\ndef get_inputs():\n    return [torch.randn(4, 6)]\n"


def traced(body: str, *inputs: object) -> OpGraph:
    loaded = load(f"{HEAD}{body}{FOOT}", "op.py")
    return trace(loaded.build(0), inputs or loaded.inputs(0))


def forward(expression: str) -> str:
    return f"class Model(torch.nn.Module):\n    def forward(self, x):\n        {expression}\n"


def test_composite_operators_stay_whole_and_survive_json() -> None:
    graph = traced(forward("return F.layer_norm(torch.softmax(x, -1), (6,)) * 2.0"))
    assert [call.target for call in graph.calls] == [
        "aten.softmax.int", "aten.layer_norm.default", "aten.mul.Tensor",
    ]  # fmt: skip
    assert graph.output_specs[0].shape == (4, 6)
    assert OpGraph.model_validate_json(graph.model_dump_json()) == graph


def test_the_notes_on_types_are_left_out_so_that_they_read_nothing() -> None:
    graph = traced(forward("return (x.float() * 2.0).to(torch.bfloat16)"))
    assert not [call.target for call in graph.calls if "assert" in call.target]
    assert all(graph.users[call.name] for call in graph.calls[:-1])


def test_weights_buffers_and_small_constants_enter_by_name() -> None:
    graph = traced("""
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(6, 2)
        self.register_buffer("shift", torch.ones(2))

    def forward(self, x):
        return self.inner(x) + self.shift + torch.tensor([1.5, 2.5])
""")
    entering = {(node.kind, node.target) for node in graph.nodes if node.kind != "call"}
    assert {("parameter", "inner.weight"), ("buffer", "shift"), ("input", "0")} <= entering
    (constant,) = [node for node in graph.nodes if node.kind == "constant"]
    assert constant.data == [1.5, 2.5]


KEPT = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.kept = {kept}

    def forward(self, x):
        return {result}
"""


@pytest.mark.parametrize("size", [6, 1000])
def test_a_tensor_kept_as_a_plain_attribute_is_read_there_whatever_its_size(size: int) -> None:
    graph = traced(KEPT.format(kept=f"torch.randn(6, {size})", result="torch.sin(x @ self.kept)"))
    (kept,) = [node for node in graph.nodes if node.kind not in ("call", "input")]
    assert (kept.kind, kept.target, kept.data) == ("buffer", "kept", None)
    assert kept.spec.shape == (6, size)


@pytest.mark.parametrize(
    ("kept", "result", "data"),
    [
        ("torch.tensor(0.5)", "x * self.kept", [0.5]),
        ("[torch.ones(2), torch.zeros(6)]", "x * self.kept[1]", [0.0] * 6),
        ("{'a': torch.ones(6)}", "x * self.kept['a']", [1.0] * 6),
    ],
)
def test_single_numbers_and_tensors_inside_other_things_are_written_out(
    kept: str, result: str, data: list[float]
) -> None:
    graph = traced(KEPT.format(kept=kept, result=result))
    assert [node.data for node in graph.nodes if node.kind == "constant"] == [data]


def test_an_attribute_that_forward_made_is_written_out_since_no_new_instance_has_it() -> None:
    body = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mask = None

    def forward(self, x):
        if self.mask is None:
            self.mask = torch.tril(torch.ones(6, 6))
        return x @ self.mask
"""
    loaded = load(f"{HEAD}{body}{FOOT}", "op.py")
    model = loaded.build(0)
    constructed = plain_tensors(model)
    loaded.run(model, loaded.inputs(0))
    graph = trace(model, loaded.inputs(0), constructed=constructed)
    assert [node.kind for node in graph.nodes if node.kind != "call"] == ["constant", "input"]


LAYER = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.eval()

    def forward(self, x):
        return self.layer(x)
"""


def test_a_transformer_layer_in_eval_is_its_calls_and_not_one_that_nobody_reads() -> None:
    targets = [call.target for call in traced(LAYER, torch.randn(2, 5, 6)).calls]
    assert "aten.scaled_dot_product_attention.default" in targets
    assert not any("transformer_encoder_layer" in target for target in targets)
    assert torch.backends.mha.get_fastpath_enabled()


EXPORTED = "return x * (2.0 if torch.compiler.is_exporting() else 3.0)"


@pytest.mark.parametrize(
    ("expression", "plain"),
    [
        (EXPORTED, False),
        (EXPORTED.replace("2.0", "3.0"), True),
        # What is drawn at random is never the same twice.
        (EXPORTED.replace("x *", "torch.rand_like(x) *"), True),
        ("return F.dropout(x, 0.5)", True),
        (EXPORTED.replace("x *", "F.dropout(x, 0.5, False) *"), False),
    ],
)
def test_a_graph_that_plainly_makes_something_else_than_forward_is_none(
    expression: str, plain: bool
) -> None:
    loaded = load(f"{HEAD}{forward(expression)}{FOOT}", "op.py")
    model, inputs = loaded.build(0), loaded.inputs(0)
    returned = loaded.run(model, inputs)
    if plain:
        trace(model, inputs, returned=returned)
    else:
        with pytest.raises(Untraceable, match="something else when"):
            trace(model, inputs, returned=returned)


def test_running_statistics_are_mutations() -> None:
    graph = traced("""
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(x)
""")
    assert graph.training
    assert {"norm.running_mean", "norm.running_var"} <= set(graph.mutations)


def test_one_of_several_results_is_a_reference_with_an_index() -> None:
    graph = traced(forward("values, where = torch.max(x, 1); return where, values"))
    assert graph.returns == "tuple"
    assert [ref.index for ref in graph.outputs] == [1, 0]
    assert [spec.dtype for spec in graph.output_specs] == ["int64", "float32"]


def test_a_named_tuple_is_a_tuple() -> None:
    graph = traced(forward("return torch.topk(x, 2)"))
    assert graph.returns == "tuple"
    assert len(graph.outputs) == 2


def test_a_list_stays_a_list() -> None:
    assert traced(forward("return [x + 1, x * 2]")).returns == "list"


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("x + 1, (x * 2, [x - 1])", "(a, (b, [c]))"),
        ("{'y': x + 1, '{}': {3: x * 2}}", "{'y': a, '{}': {3: b}}"),
        ("x + 1, None", "(a, None)"),
        ("[{'y': (x + 1,)}]", "[{'y': (a,)}]"),
    ],
)
def test_nested_results_are_written_as_they_are_packed(expression: str, written: str) -> None:
    graph = traced(forward(f"return {expression}"))
    assert graph.packed("abc"[: len(graph.outputs)]) == written
    assert OpGraph.model_validate_json(graph.model_dump_json()) == graph


def test_what_lstm_returns_is_packed_as_it_returns_it() -> None:
    graph = trace(torch.nn.LSTM(6, 3), (torch.randn(4, 6), None))
    assert graph.packed(["out", "h", "c"]) == "(out, (h, c))"


def test_arguments_that_are_not_tensors_are_baked_in() -> None:
    body = (
        "class Model(torch.nn.Module):\n    def forward(self, x, k, y):\n        return x * k + y\n"
    )
    graph = traced(body, torch.ones(2), 3, torch.ones(2))
    assert [node.target for node in graph.inputs] == ["0", "2"]


def test_strides_are_what_was_given() -> None:
    graph = traced(forward("return x + 1"), torch.ones(6, 4).t())
    assert graph.inputs[0].spec.strides == (1, 4)
    assert not graph.inputs[0].spec.contiguous


@pytest.mark.parametrize(
    "expression",
    [
        "return x if x.sum() > 0 else -x",
        "return {None: x + 1}",
        "return types.SimpleNamespace(y=x + 1)",
        "return None",
        "return x + 1, 3",
        "return x + open('/dev/null').fileno()",
        "x.add_(1); return x * 2",
    ],
)
def test_what_has_no_plain_form_is_untraceable_in_one_sentence(expression: str) -> None:
    with pytest.raises(Untraceable) as caught:
        traced(forward(expression))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 20


def loosely(expression: str) -> OpGraph:
    loaded = load(f"{HEAD}import os\nimport time\n\n{forward(expression)}{FOOT}", "op.py")
    return trace(loaded.build(0), loaded.inputs(0), [loaded.inputs(1), loaded.inputs(2)])


def test_python_that_strict_export_can_not_read_is_run_instead() -> None:
    graph = loosely("return x * (2.0 if sum(1 for _ in os.scandir('/')) else 3.0)")
    assert [call.target for call in graph.calls] == ["aten.mul.Tensor"]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        # Run on tensors without values, it would be frozen as it was at that moment.
        ("return x * (sum(1 for _ in os.scandir('/')) + time.perf_counter_ns() % 999)", "line 11"),
        (
            "return x if x.sum() > 0 else -x",
            "depends on the values of a tensor, on line 11: return",
        ),
        ("k = int(x.abs().max().item()); return x * k if k > 1 else x", "values of a tensor"),
        ("return F.cross_entropy(x[x[:, 0] > 0], x[x[:, 0] > 0])", "values of a tensor"),
        ("return torch.nonzero(x)", "the shape of what aten.nonzero.default makes depends on"),
    ],
)
def test_what_hangs_on_values_or_on_the_hour_is_refused_and_said_where(
    expression: str, told: str
) -> None:
    with pytest.raises(Untraceable, match=told) as caught:
        loosely(expression)
    assert "\n" not in str(caught.value)


def test_a_graph_computes_what_the_module_does() -> None:
    """Replays the plain graph node by node, which only works if nothing was lost on the way."""
    body = forward(
        "v, i = torch.max(F.gelu(x) - 0.5, 1); return F.relu(v) + i, torch.softmax(x, 0)"
    )
    graph = traced(body)
    x = torch.randn(4, 6)
    values: dict[str, object] = {"0": x}

    def value(argument: object) -> object:
        if isinstance(argument, Ref):
            found = values[argument.ref]
            return found if argument.index is None else found[argument.index]  # type: ignore[index]
        return argument

    for node in graph.nodes:
        if node.kind == "input":
            values[node.name] = x
            continue
        namespace, name, overload = node.target.split(".")
        operator = getattr(getattr(getattr(torch.ops, namespace), name), overload)
        arguments = {key: value(given) for key, given in node.kwargs.items()}
        values[node.name] = operator(*map(value, node.args), **arguments)
    highest, where = torch.max(F.gelu(x) - 0.5, 1)
    expected = (F.relu(highest) + where, torch.softmax(x, 0))
    for ref, tensor in zip(graph.outputs, expected, strict=True):
        torch.testing.assert_close(value(ref), tensor)


def test_a_shape_that_depends_on_values_is_told_in_one_sentence() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(int(index.max()) + 1, 4).index_add(0, index, x)

    with pytest.raises(Untraceable):
        trace(Model(), (torch.randn(6, 4), torch.tensor([0, 2, 1, 0, 2, 1])))
