"""Each rewrite on random shapes in float64, where none can hide behind rounding; and its limits."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.emit import emit
from knowledge.pattern import Refusal, Step, load_pattern
from knowledge.patterns.algebra.pattern import CONSTANT, rewrite
from knowledge.program import Program
from tests.patterns.workshop import SITUATION, Built, build, complaints, function, load, reference
from tools.trace import trace

ALGEBRA = (Step(pattern="algebra"),)
FAST = settings(max_examples=4, suppress_health_check=list(HealthCheck))
LINEAR = """    def __init__(self):
        super().__init__()
        self.linear = nn.Linear({k}, {n}, bias={bias})

    def forward(self, x):
        return {expression}"""


def rewritten(source: str) -> tuple[list[str], list[str], Any, Any, list[Any]]:
    """What was done and refused, and both modules' results, everything in float64."""
    module = load(source)
    torch.manual_seed(0)
    model = module.Model().double()
    inputs = [value.double() for value in module.get_inputs()]
    graph = trace(model, tuple(inputs))
    changed, done, unfit = rewrite(graph)
    candidate = load(emit(Program.of(changed, source))).ModelNew().double()
    candidate.load_state_dict(copy.deepcopy(model.state_dict()))
    with torch.no_grad():
        return done, unfit, model(*inputs), candidate(*inputs), inputs


def check(source: str, *words: str) -> None:
    """The rewrites in `words` are applied, and the result is the same to float64's last digits."""
    done, _, expected, made, _ = rewritten(source)
    for word in words:
        assert any(word in one for one in done), done
    assert made.shape == expected.shape
    torch.testing.assert_close(made, expected, rtol=1e-11, atol=1e-11)


sizes = st.integers(2, 9)
factors = st.floats(-4, 4).filter(lambda factor: abs(factor) > 0.1)
HOW = st.sampled_from(["sum", "mean"])


@FAST
@given(
    sizes, sizes, sizes, st.booleans(), st.booleans(), st.sampled_from(["sum", "mean"]),
    st.sampled_from(["-1", "2", "(1, 2)", "(0, 1, 2)", "0", "(0, 1)"]),
)  # fmt: skip
def test_sum_of_a_linear_layer_becomes_a_vector_product(
    m: int, k: int, n: int, bias: bool, keep: bool, how: str, dim: str
) -> None:
    expression = f"torch.{how}(self.linear(x), dim={dim}, keepdim={keep})"
    body = LINEAR.format(k=k, n=n, bias=bias, expression=expression)
    check(reference(body, f"torch.randn({m}, 3, {k})"), f"{how} of a linear layer")


@FAST
@given(sizes, sizes, sizes, HOW, st.sampled_from(["-1", "-2", "(1, 2)", "(0, 2)"]))
def test_sum_of_a_matrix_product_becomes_a_product_of_sums(
    m: int, k: int, n: int, how: str, dim: str
) -> None:
    source = function(
        "a, b", f"torch.{how}(torch.matmul(a, b), dim={dim})",
        f"torch.randn(4, {m}, {k}), torch.randn(4, {k}, {n})",
    )  # fmt: skip
    check(source, f"{how} of a matrix product")


@FAST
@given(sizes, sizes, st.sampled_from(["* 1.7", "/ 3.0", "+ 2.5", "- 0.5"]), HOW)
def test_scalings_and_offsets_wait_until_after_the_sum(m: int, k: int, step: str, how: str) -> None:
    body = LINEAR.format(
        k=k, n=5, bias=True, expression=f"torch.{how}(self.linear(x) {step}, dim=1)"
    )
    check(
        reference(body, f"torch.randn({m}, {k})"),
        f"is done after the {how}",
        f"{how} of a linear layer",
    )


@FAST
@given(sizes, sizes)
def test_a_bias_that_is_added_by_hand_is_summed_apart(m: int, n: int) -> None:
    source = function(
        "a, b, c", "torch.sum(torch.matmul(a, b) + c, dim=-1)",
        f"torch.randn({m}, 4), torch.randn(4, {n}), torch.randn({n})",
    )  # fmt: skip
    check(source, "add is done after the sum", "sum of a matrix product")


@FAST
@given(sizes, st.sampled_from(["sum", "mean", "amax", "logsumexp"]), st.booleans())
def test_a_reduction_of_one_element_is_the_element(n: int, how: str, keep: bool) -> None:
    source = function("x", f"torch.{how}(x, dim=1, keepdim={keep}) * 2", f"torch.randn({n}, 1)")
    check(source, "over a dimension of size 1")


def test_the_largest_of_one_element_is_the_element() -> None:
    check(function("x", "torch.max(x, dim=1)[0]", "torch.randn(5, 1)"), "max over a dimension")


def test_the_position_of_the_largest_of_one_element_is_kept() -> None:
    done, unfit, *_ = rewritten(function("x", "x.max(dim=1)", "torch.randn(5, 1)"))
    assert not done
    assert "the position of the largest element is needed too" in unfit[0]


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_one_element_is_constant_but_for_what_is_not_finite(name: str) -> None:
    source = function("x", f"torch.{name}(x, dim=1)", "torch.randn(5, 1)")
    check(source, "is a constant")
    built = build(source, ALGEBRA)
    assert built.program.labels == (CONSTANT,)
    values = torch.tensor([[1.0], [float("nan")], [float("inf")]])
    assert complaints(built, [values]) == []


@pytest.mark.parametrize("expression", ["x * 1 + 0", "x / 1.0 - 0.0", "x ** 1 * 1.0"])
def test_neutral_elements_vanish(expression: str) -> None:
    check(function("x", f"torch.sin({expression})", "torch.randn(4, 5)"), "is nothing")


def test_a_neutral_element_that_changes_the_type_stays() -> None:
    source = function("x", "x * 1.0", "torch.arange(5)")
    built = build(source, ())
    _, done, unfit = rewrite(built.graph)
    assert not done
    assert "changes the type" in unfit[0]


@pytest.mark.parametrize(
    "expression",
    ["x.t().t() + 1", "x.transpose(0, 1).transpose(1, 0) + 1", "-(-x) + 1",
     "x[None].permute(2, 0, 1).permute(1, 2, 0) + 1"],
)  # fmt: skip
def test_views_that_undo_each_other_vanish(expression: str) -> None:
    check(function("x", expression, "torch.randn(4, 5)"), "is nothing")


def test_permutations_that_do_not_undo_each_other_stay() -> None:
    source = function("x", "x.permute(1, 2, 0).permute(1, 2, 0) + 1", "torch.randn(2, 3, 4)")
    done, unfit, expected, made, _ = rewritten(source)
    assert not done
    assert "do not undo each other" in unfit[0]
    torch.testing.assert_close(made, expected)


@FAST
@given(factors, factors)
def test_constants_that_follow_each_other_are_folded(a: float, b: float) -> None:
    check(function("x", f"(x * {a!r}) / {b!r}", "torch.randn(4, 5)"), "constants of mul are one")
    check(function("x", f"(x + {a!r}) - {b!r}", "torch.randn(4, 5)"), "constants of add are one")


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("torch.relu(torch.relu(x))", "relu changes nothing"),
        ("torch.relu(torch.clamp(x, 0.0, 2.0))", "relu changes nothing"),
        ("torch.clamp(torch.sigmoid(x), -1.0, 1.0)", "clamp changes nothing"),
        ("torch.relu(F.softmax(x, 1).view(20))", "relu changes nothing"),
        ("torch.clamp(torch.clamp(x, min=-1.0), max=0.5)", "are one clamp"),
        ("F.hardtanh(torch.relu(x), -1.0, 1.0)", "are one clamp"),
    ],
)
def test_needless_clamps_vanish(expression: str, words: str) -> None:
    source = function("x", expression, "torch.randn(4, 5)")
    check(source, words)
    values = torch.randn(4, 5)
    values[0, 0], values[1, 1] = float("nan"), float("inf")
    assert complaints(build(source, ALGEBRA), [values]) == []


def test_clamps_that_leave_one_value_are_not_called_a_win() -> None:
    source = function("x", "torch.clamp(torch.clamp(x, min=1.0), max=0.5)", "torch.randn(4)")
    built = build(source, ())
    _, done, unfit = rewrite(built.graph)
    assert not done
    assert "whatever the input is" in unfit[0]


def test_the_same_call_is_made_once() -> None:
    check(
        function("x", "torch.sin(x) + torch.sin(x)", "torch.randn(4)"), "sin is not computed twice"
    )


def test_random_calls_are_neither_joined_nor_dropped() -> None:
    source = function("x", "F.dropout(x, 0.5) + F.dropout(x, 0.5) * 1", "torch.randn(50)")
    built: Built = build(source, ALGEBRA)
    assert sum("dropout" in node.target for node in built.program.graph.calls) == 2
    assert complaints(built) == []


def test_a_product_that_is_needed_twice_stays() -> None:
    body = LINEAR.format(
        k=4, n=5, bias=True, expression="(lambda y: (y, y.sum(1)))(self.linear(x))"
    )
    source = reference(body, "torch.randn(3, 4)")
    done, unfit, *_ = rewritten(source)
    assert not done
    assert "needed for something else too" in unfit[0]


def test_weights_that_change_after_construction_change_the_result() -> None:
    body = LINEAR.format(k=4, n=5, bias=True, expression="self.linear(x).sum(1)")
    built = build(reference(body, "torch.randn(3, 4)"), ALGEBRA)
    candidate = built.candidate()
    with torch.no_grad():
        first = candidate(*built.inputs)
        for parameter in candidate.parameters():
            parameter.mul_(2)
        torch.testing.assert_close(candidate(*built.inputs), first * 2)


def test_the_gain_is_reckoned_in_operations_and_bytes() -> None:
    body = LINEAR.format(k=512, n=512, bias=True, expression="self.linear(x).sum(1)")
    program = build(reference(body, "torch.randn(256, 512)"), ()).program
    answer = load_pattern("algebra").propose(program, SITUATION)
    assert isinstance(answer, list)
    assert "0.134 GFLOP" in answer[0].arithmetic
    assert answer[0].speedup > 5


@pytest.mark.parametrize("order", ["1, 2, 4", "4, 1, 2", "3, 6, 12"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_means_of_coarse_cells_are_made_of_finer_ones(order: str, dims: int) -> None:
    pools = f"F.adaptive_avg_pool{dims}d(x, n).flatten(2) for n in ({order})"
    inputs = f"torch.randn(2, 3, {', '.join(['12', '12', '24'][:dims])})"
    source = function("x", f"torch.cat([{pools}], 2)", inputs)
    check(source, "of a finer grid")
    changed, done, _ = rewrite(build(source, ()).graph)
    pooled = [one for one in changed.calls if "adaptive_avg_pool" in one.target]
    assert len(done) == 2
    assert sum(one.args[0] == pooled[0].args[0] for one in pooled) == 1


@pytest.mark.parametrize("grids", ["2, 3", "5, 1", "2, 5"])
def test_cells_that_do_not_lie_in_each_other_are_averaged_apart(grids: str) -> None:
    source = function(
        "x", f"torch.cat([F.adaptive_avg_pool2d(x, n).flatten(1) for n in ({grids})], 1)",
        "torch.randn(2, 3, 12, 12)",
    )  # fmt: skip
    assert not any("finer" in one for one in rewrite(build(source, ()).graph)[1])


def test_means_of_means_in_half_precision_stay_apart() -> None:
    source = function(
        "x", "F.adaptive_avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 4)",
        "torch.randn(2, 3, 8, 8).half()",
    )  # fmt: skip
    _, done, unfit = rewrite(build(source, ()).graph)
    assert not done
    assert "rounded twice" in unfit[0]


def test_means_of_means_are_made_for_the_traced_sizes_alone() -> None:
    source = function(
        "x", "F.adaptive_avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 4)", "torch.randn(2, 3, 8, 8)"
    )
    built = build(source, (*ALGEBRA, Step(pattern="pooling")))
    assert complaints(built) == []
    assert complaints(built, [torch.randn(5, 3, 8, 8)]) == []
    with pytest.raises(ValueError, match="made for"):
        built.candidate()(torch.randn(2, 3, 9, 9))


def test_nothing_to_rewrite_is_refused() -> None:
    program = build(function("x", "torch.sin(x)", "torch.randn(4)"), ()).program
    answer = load_pattern("algebra").propose(program, SITUATION)
    assert isinstance(answer, Refusal)
    with pytest.raises(ValueError, match="no rewrite matches"):
        load_pattern("algebra").apply(program, ALGEBRA[0])


def test_states_made_of_nothing_stay_two_tensors() -> None:
    body = """    def __init__(self):
        super().__init__()
        self.net = nn.LSTM(12, 16, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.net(x)[0] * 2.0"""
    built = build(reference(body, "torch.randn(4, 7, 12)"), (Step(pattern="row_loop"),))
    zeros = [call for call in built.graph.calls if call.target.startswith("aten.zeros")]
    assert len(zeros) >= 2
    answer = load_pattern("algebra").propose(built.program, SITUATION)
    assert not (isinstance(answer, list) and "zeros" in answer[0].title)
    assert complaints(built) == []
