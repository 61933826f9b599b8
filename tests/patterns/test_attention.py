"""Attention in one pass, in all its spellings, against float64; and what it leaves alone."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.opgraph import line_of
from knowledge.pattern import Refusal, Step, load_pattern
from knowledge.program import Program
from tests.patterns.attention_ways import WAYS
from tests.patterns.workshop import SITUATION, Built, build, complaints, function, reference
from tools.trace import trace

PATTERN = load_pattern("attention")
FAST = settings(max_examples=6, suppress_health_check=list(HealthCheck))
SDPA = "F.scaled_dot_product_attention"
SCORES = "q @ k.transpose(-2, -1)"
INF = "float('-inf')"
FORMS = {
    "call": (f"{SDPA}(q, k, v)", None),
    "causal": (f"{SDPA}(q, k, v, is_causal=True)", None),
    "scaled": (f"{SDPA}(q, k, v, is_causal=True, scale=0.3)", None),
    "keep": (f"{SDPA}(q, k, v, m)", "torch.ones({q}, {k}).tril(5).bool()"),
    "add": (f"{SDPA}(q, k, v, m)", "torch.randn(2, 1, {q}, {k})"),
    "plain": (f"torch.softmax({SCORES} / math.sqrt(q.size(-1)), -1) @ v", None),
    "filled": (
        f"F.dropout(torch.softmax(({SCORES} * 0.3).masked_fill(m == 0, {INF}), -1), 0.1, False)"
        " @ v",
        "torch.ones(1, 1, {q}, {k}).tril(5)",
    ),
    "almost": (
        f"torch.softmax(({SCORES} * 0.3).masked_fill(m, -1e9), -1) @ v",
        "torch.rand(2, 1, 1, {k}) < 0.3",
    ),
    "chosen": (
        f"torch.softmax(torch.where(m, {SCORES}, {INF}) / 3, -1) @ v",
        "torch.ones({q}, {k}).tril(5).bool()",
    ),
    "added": (
        f"(torch.softmax(m + {SCORES} * 0.3, -1) @ v).transpose(1, 2).contiguous()",
        "torch.full(({q}, {k}), -math.inf).triu(6)",
    ),
}


LAYER = """    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(64, 4, 96, batch_first=True)
        self.eval()

    def forward(self, x):
        return self.layer(x)"""


def test_a_transformer_layer_in_eval_has_attention_like_any_other() -> None:
    source = reference(LAYER, "torch.randn(2, 70, 64)")
    program = Program.of(build(source, ()).graph, source)
    answer = PATTERN.propose(program, SITUATION)
    assert not isinstance(answer, Refusal)
    assert complaints(build(source, (answer[0].step,))) == []


def attention(
    name: str,
    rows: int = 70,
    keys: int = 70,
    depth: int = 8,
    width: int = 0,
    tiles: int = 8,
    dtype: str = "float32",
) -> Built:
    """One of the forms, for these sizes; a mask of numbers has the operands' type."""
    expression, mask = FORMS[name]
    shapes = [(2, 3, rows, depth), (2, 3, keys, depth), (2, 3, keys, width or depth)]
    inputs = ", ".join(f"torch.randn({shape}).to(torch.{dtype})" for shape in shapes)
    if mask is not None:
        inputs += ", " + mask.format(q=rows, k=keys)
        inputs += f".to(torch.{dtype})" if name in ("add", "added") else ""
    source = function("q, k, v, m" if mask else "q, k, v", expression, inputs)
    return build(source, (Step(pattern="attention", parameters={"key_tiles": tiles}),))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["causal", "add", "filled"])
def test_halves_are_computed_in_float_and_rounded_once(name: str, dtype: str) -> None:
    built = attention(name, 45, 70, 24, dtype=dtype)
    assert len(built.program.kernels) == 1
    assert complaints(built) == []


@pytest.mark.parametrize("name", FORMS)
def test_every_spelling_is_one_kernel_and_as_right_as_the_reference(name: str) -> None:
    built = attention(name)
    assert len(built.program.kernels) == 1
    left = {call.target.split(".")[1] for call in built.program.library_calls}
    assert left <= {"transpose", "eq", "clone"}
    assert complaints(built) == []


@FAST
@given(
    st.sampled_from(["call", "causal", "keep", "plain"]), st.integers(1, 300), st.integers(1, 300),
    st.sampled_from([1, 7, 32, 65]), st.sampled_from([8, 16]),
)  # fmt: skip
def test_all_sizes_may_be_odd(name: str, rows: int, keys: int, depth: int, tiles: int) -> None:
    assert complaints(attention(name, rows, keys, depth, tiles=tiles)) == []


def test_values_may_be_wider_than_keys() -> None:
    assert complaints(attention("causal", 70, 90, 8, 33)) == []


def test_a_batch_other_than_the_traced_one_is_taken_and_so_are_strides() -> None:
    inputs = [torch.randn(3, 70, 4, 16).transpose(1, 2)[:, :3, :, ::2] for _ in range(3)]
    assert complaints(attention("causal"), inputs) == []
    assert complaints(attention("plain"), inputs) == []


def test_three_dimensions_are_taken() -> None:
    expression = "torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1), v)"
    source = function("q, k, v", expression, ", ".join(["torch.randn(3, 40, 8)"] * 3))
    assert complaints(build(source, (Step(pattern="attention"),))) == []


def test_heads_may_share_keys() -> None:
    shapes = "torch.randn(2, 6, 40, 8), torch.randn(2, 2, 40, 8), torch.randn(2, 2, 40, 8)"
    expression = f"{SDPA}(q, k, v, is_causal=True, enable_gqa=True)"
    built = build(function("q, k, v", expression, shapes), (Step(pattern="attention"),))
    assert complaints(built) == []


@pytest.mark.parametrize("name", ["keep", "filled", "chosen"])
def test_a_query_that_sees_no_key_gives_what_torch_gives(name: str) -> None:
    built = attention(name)
    inputs = list(built.inputs)
    mask = inputs[3].clone()
    mask[..., 3, :] = False
    inputs[3] = mask
    assert complaints(built, inputs) == []
    made = built.candidate()(*inputs)[0, 0, 3]
    assert bool((made == 0).all()) if name == "keep" else bool(made.isnan().all())


@pytest.mark.parametrize("name", ["call", "causal", "keep", "filled", "added"])
@pytest.mark.parametrize("operand", [0, 1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_come_out_where_they_should(
    name: str, operand: int, value: float
) -> None:
    built = attention(name, 300, 300)
    inputs = [given.clone() for given in built.inputs]
    inputs[operand][1, 1, 200, 3] = value
    assert complaints(built, inputs) == []


def test_a_causal_call_of_many_rows_spreads_an_infinite_value_as_far_as_torch() -> None:
    built = attention("causal", 1000, 1000)
    inputs = [given.clone() for given in built.inputs]
    inputs[2][0, 0, 900, 0] = float("inf")
    assert complaints(built, inputs) == []


def test_hidden_steps_are_skipped_only_where_that_changes_nothing() -> None:
    built = attention("filled", 500, 500)
    assert complaints(built) == []
    blocked = list(built.inputs)
    blocked[3] = torch.zeros(1, 1, 500, 500)
    blocked[3][..., 300:] = 1
    assert complaints(built, blocked) == []


# What is done to scores: none of it may be left to the library.
INSIDE = {
    "matmul", "bmm", "baddbmm", "einsum", "softmax", "masked_fill", "where", "tanh", "cat", "max",
    "repeat_interleave", "expand", "clone", "mul", "add", "_to_copy", "to", "sub",
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_ways_that_people_write_it_are_one_kernel_too(name: str) -> None:
    built = build(WAYS[name], (Step(pattern="attention"),))
    assert len(built.program.kernels) == 1
    # A mask may be made by the library; queries and scores are larger.
    largest = 3 * 49 * 49 if "table" in name else 20 * 45
    left = [call for call in built.program.library_calls if call.target.split(".")[1] in INSIDE]
    assert [call.name for call in left if call.spec.numel > largest] == []
    assert complaints(built) == []


@pytest.mark.parametrize("name", ["interleaved", "expanded", "expanded for the call"])
def test_keys_that_heads_share_are_read_where_they_are_and_never_copied(name: str) -> None:
    built = build(WAYS[name], (Step(pattern="attention"),))
    reads = built.program.kernels[0].reads
    assert {built.graph.spec_of(ref).numel for ref in reads[1:3]} == {2 * 2 * 45 * 8}
    left = {call.target.split(".")[1] for call in built.program.library_calls}
    assert left <= {"unsqueeze", "slice"}


def test_windows_of_more_images_than_the_traced_ones_have_their_own_masks() -> None:
    built = build(WAYS["shifted windows"], (Step(pattern="attention"),))
    generator = torch.Generator().manual_seed(3)
    q, k, v, bias, mask = built.inputs
    inputs = [torch.randn(one.shape, generator=generator) for one in (q, k, v)]
    hidden = torch.where(torch.rand(mask.shape, generator=generator) < 0.5, -math.inf, mask)
    assert complaints(built, [*inputs, bias, hidden]) == []


BIASED = (
    "torch.softmax((q @ k.transpose(-2, -1) * 0.3 + b).masked_fill(m, {fill}) + c, -1) @ v",
    "*torch.randn(3, 2, 2, 70, 8).unbind(), torch.randn(2, 70, 70), "
    "torch.ones(70, 70).triu(1).bool(), torch.zeros(70, 70)",
)


@pytest.mark.parametrize("fill", [INF, "-1e9", "0.0"])
@pytest.mark.parametrize(("number", "value"), [(3, "inf"), (3, "nan"), (5, "inf"), (5, "-inf")])
def test_several_masks_hide_no_more_than_the_reference_says(
    fill: str, number: int, value: str
) -> None:
    expression, inputs = BIASED
    inputs = inputs.replace("70", "300")
    built = build(
        function("q, k, v, b, m, c", expression.format(fill=fill), inputs),
        (Step(pattern="attention"),),
    )
    assert complaints(built) == []
    given = [one.clone() for one in built.inputs]
    # In a step of keys that the filling mask hides whole.
    given[number][..., 20, 280] = float(value)
    assert complaints(built, given) == []


@pytest.mark.parametrize("sink", [-math.inf, math.inf, math.nan, 80.0])
def test_a_sink_takes_its_share_whatever_it_is(sink: float) -> None:
    built = build(WAYS["a sink"], (Step(pattern="attention"),))
    given = list(built.inputs)
    given[3] = torch.tensor([0.0, sink, -3.0, sink])
    assert complaints(built, given) == []


@pytest.mark.parametrize("operand", [0, 1, 2])
def test_infinity_comes_through_a_cap_as_torch_has_it(operand: int) -> None:
    built = build(WAYS["capped"], (Step(pattern="attention"),))
    given = [one.clone() for one in built.inputs]
    given[operand][1, 1, 7, 3] = float("inf")
    assert complaints(built, given) == []


def _refusal(arguments: str, expression: str, inputs: str, double: bool = False) -> str:
    built = build(function(arguments, expression, inputs), ())
    program = built.program
    if double:
        graph = trace(built.model, tuple(x.double() for x in built.inputs))
        program = Program.of(graph, built.program.reference_source)
    answer = PATTERN.propose(program, SITUATION)
    assert isinstance(answer, Refusal)
    with pytest.raises(ValueError, match="none that it can take"):
        PATTERN.apply(program, Step(pattern="attention"))
    return answer.reason


THREE = ", ".join(["torch.randn(2, 3, 20, 8)"] * 3)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (f"{SDPA}(q, k, v, dropout_p=0.2)", "at random"),
        (f"{SDPA}(q, k, v, scale=-0.3)", "not positive"),
        (f"(lambda w: (w @ v, w))(torch.softmax({SCORES}, -1))", "something else too"),
        (f"torch.softmax({SCORES}, -2) @ v", "another dimension"),
        (f"torch.softmax({SCORES} * q.mean(), -1) @ v", "scaled by a tensor"),
        (f"torch.softmax({SCORES} + 1.0, -1) @ v", "a number added"),
        (f"torch.softmax(torch.tanh({SCORES} + q[:, :, :, :1]), -1) @ v", "capped after it was"),
        (f"torch.softmax(({SCORES}).double(), -1).float() @ v", "rounds its scores to float64"),
        (f"torch.softmax(torch.cat([{SCORES}, q[..., :1]], -1), -1)[..., 1:] @ v", "shape"),
        ("torch.softmax(q, -1) @ v.transpose(-2, -1)", "there is none in the graph"),
    ],
)
def test_what_it_cannot_do_is_refused_with_a_sentence(expression: str, words: str) -> None:
    assert words in _refusal("q, k, v", expression, THREE)


def test_other_types_are_left_to_the_library() -> None:
    assert "float64" in _refusal("q, k, v", f"{SDPA}(q, k, v)", THREE, double=True)


def test_keys_that_do_not_go_with_the_queries_are_refused_when_it_runs() -> None:
    built = attention("call")
    q, k, v = built.inputs
    with pytest.raises(ValueError, match="do not go with"):
        built.candidate()(q, k[:1], v)


def test_proposals_hold_the_kernel_against_the_measured_call() -> None:
    program = attention("call").program
    plain = Program.of(program.graph, program.reference_source)
    line = line_of(plain.graph.calls[0])
    found = [
        PATTERN.propose(plain, SITUATION.model_copy(update={"call_ms": {line: ms}}))
        for ms in (9.0, 0.0001)
    ]
    assert isinstance(found[0], list)
    assert isinstance(found[1], list)
    assert found[0][0].speedup > 5
    assert found[1][0].speedup < 1
    assert [p.step.parameters["key_tiles"] for p in found[0]] == [8, 16]


def test_an_unknown_tunable_is_an_error() -> None:
    program = build(function("q, k, v", f"{SDPA}(q, k, v)", THREE), ()).program
    with pytest.raises(ValueError, match="unknown key_tiles"):
        PATTERN.apply(program, Step(pattern="attention", parameters={"key_tiles": 7}))


def test_views_of_a_result_that_lies_otherwise_than_the_librarys_are_taken() -> None:
    body = """    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(32, 4)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]"""
    built = build(reference(body, "torch.randn(20, 3, 32)"), (Step(pattern="attention"),))
    assert built.program.kernels
    assert complaints(built) == []


@pytest.mark.parametrize(
    ("given", "mask"),
    [
        ("attn_mask=m", "torch.ones(20, 20).triu(1).bool()"),
        ("attn_mask=m", "torch.randn(12, 20, 20)"),
        ("key_padding_mask=m", "torch.rand(3, 20) < 0.2"),
    ],
)
def test_a_module_of_many_heads_may_have_a_mask(given: str, mask: str) -> None:
    body = f"""    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x, m):
        return self.attention(x, x, x, {given})[0]"""
    built = build(reference(body, f"torch.randn(3, 20, 32), {mask}"), (Step(pattern="attention"),))
    assert len(built.program.kernels) == 1
    assert complaints(built) == []
