"""Batch norm in training and reductions around columns against float64, running statistics too."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.pattern import Refusal, Step, load_pattern
from tests.patterns.workshop import SITUATION, Built, build, complaints, function, reference

COLUMNS = (Step(pattern="column_statistics"),)
FEW = settings(max_examples=5, suppress_health_check=list(HealthCheck))
BODY = """    def __init__(self):
        super().__init__()
        self.norm = nn.{layer}
        for parameter in self.norm.parameters():
            nn.init.normal_(parameter)

    def forward(self, x):
        return {expression}"""


def normalised(
    layer: str, inputs: str, expression: str = "self.norm(x)", steps: tuple[Step, ...] = COLUMNS
) -> Built:
    """A built batch norm."""
    return build(reference(BODY.format(layer=layer, expression=expression), inputs), steps)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        ("BatchNorm2d(5)", "torch.randn(6, 5, 9, 11)"),
        ("BatchNorm2d(5, affine=False)", "torch.randn(6, 5, 9, 11)"),
        ("BatchNorm2d(5, track_running_stats=False)", "torch.randn(6, 5, 9, 11)"),
        ("BatchNorm2d(5, eps=1e-3, momentum=0.4)", "torch.randn(6, 5, 9, 11) * 3 + 40"),
        ("BatchNorm1d(300)", "torch.randn(50, 300)"),
        ("BatchNorm1d(7)", "torch.randn(50, 7, 30)"),
        ("BatchNorm3d(4)", "torch.randn(3, 4, 5, 6, 7)"),
        ("BatchNorm2d(70)", "torch.randn(2, 70, 100, 50)"),
    ],
)
def test_batch_norm_uses_and_keeps_the_statistics_of_its_batch(layer: str, inputs: str) -> None:
    built = normalised(layer, inputs)
    assert not any("batch_norm" in node.target for node in built.program.graph.calls)
    assert complaints(built) == []


def test_batch_norm_and_what_follows_make_two_kernels() -> None:
    source = "F.relu(self.norm(x)) * 0.5 + x"
    built = normalised("BatchNorm2d(5)", "torch.randn(6, 5, 9, 11)", source)
    assert len(built.program.kernels) == 2
    # What is left is the count of batches, one number.
    assert [node.spec.numel for node in built.program.library_calls] == [1]
    assert complaints(built) == []


def test_double_precision_is_kept() -> None:
    body = BODY.format(layer="BatchNorm2d(5, dtype=torch.float64)", expression="self.norm(x)")
    built = build(reference(body, "torch.randn(6, 5, 9, 11).double() + 3"), COLUMNS)
    assert built.program.kernels
    assert complaints(built) == []


def test_another_batch_and_other_strides_are_right_too() -> None:
    built = normalised("BatchNorm2d(5)", "torch.randn(6, 5, 9, 11)")
    for x in (torch.randn(17, 5, 9, 11), torch.randn(6, 5, 11, 9).transpose(2, 3)):
        assert complaints(built, [x]) == []


def test_nan_and_infinity_stay_in_their_channels() -> None:
    built = normalised("BatchNorm2d(5, track_running_stats=False)", "torch.randn(6, 5, 9, 11)")
    x = torch.randn(6, 5, 9, 11)
    x[3, 1, 2, 2], x[0, 2, 0, 0] = float("nan"), float("inf")
    assert complaints(built, [x]) == []


def test_values_far_from_zero_lose_no_digits() -> None:
    built = normalised("BatchNorm2d(5, track_running_stats=False)", "torch.randn(6, 5, 9, 11)")
    x = torch.randn(6, 5, 9, 11) + 1e4
    x[0, 0, 0, 0] = -1e6
    assert complaints(built, [x]) == []


@pytest.mark.parametrize(
    "call",
    [
        "x.var((0, 2, 3))", "x.var(dim=(0, -1))",
        "x.std((0, 2, 3), unbiased=False)", "x.std(dim=(0, 3))", "torch.var_mean(x, (0, 2, 3))",
        "torch.var(x, (0, 2, 3), correction=2)",
        "torch.std_mean(x, (0, 2, 3), keepdim=True)",
    ],
)  # fmt: skip
def test_reductions_around_columns_are_as_right_as_the_reference(call: str) -> None:
    built = build(function("x", call, "torch.randn(6, 5, 9, 11)"), COLUMNS)
    assert not built.program.library_calls
    assert complaints(built) == []
    x = torch.randn(9, 5, 9, 11) + 3
    x[0, 1, 2, 3], x[8, 2, 0, 0] = float("nan"), float("inf")
    assert complaints(built, [x]) == []


@FEW
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 17, 64, 300]))
def test_one_kernel_takes_every_size(outer: int, columns: int, inner: int) -> None:
    built = build(function("x", "torch.var_mean(x, (0, 2))", "torch.randn(6, 5, 9)"), COLUMNS)
    x = torch.randn(outer + 1, columns, inner) * 5 + 2
    assert complaints(built, [x]) == []


@pytest.mark.parametrize("call", ["x.sum(0)", "x.mean(0)", "x.var(0)"])
def test_a_long_narrow_matrix_is_cut_into_parts(call: str) -> None:
    built = build(function("x", call, "torch.randn(5001, 300)"), COLUMNS)
    assert complaints(built) == []


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    candidate = build(function("x", "x.var(0)", "torch.randn(5001, 300)"), COLUMNS).candidate()
    x, threads = torch.randn(5001, 300), torch.get_num_threads()
    try:
        made = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            made.append(candidate(x))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    ("expression", "inputs", "why"),
    [
        ("x.sum(1)", "torch.randn(6, 5)", "no statistics of columns|loops reduce"),
        ("x.sum(0)", "torch.randn(6, 5)", "loops reduce"),
        ("x.sum((0, 2))", "torch.randn(6, 5, 4, 3)", "no statistics of columns"),
        ("x.mean((0, 2, 3))", "torch.randn(6, 5, 4, 3)", "speed of memory"),
        ("x + 1", "torch.randn(6, 5)", "no statistics of columns"),
    ],
)
def test_other_reductions_are_refused_in_a_sentence(expression: str, inputs: str, why: str) -> None:
    program = build(function("x", expression, inputs), ()).program
    answer = load_pattern("column_statistics").propose(program, SITUATION)
    assert isinstance(answer, Refusal)
    assert any(word in answer.reason for word in why.split("|"))
    with pytest.raises(ValueError, match="nothing to gather"):
        load_pattern("column_statistics").apply(program, COLUMNS[0])


def test_a_batch_norm_is_worth_proposing() -> None:
    built = normalised(
        "BatchNorm2d(32)", "torch.randn(16, 32, 56, 56)", "torch.relu(self.norm(x) * 2)", ()
    )
    answers = load_pattern("column_statistics").propose(built.program, SITUATION)
    assert isinstance(answers, list)
    assert "MB" in answers[0].arithmetic
    assert answers[0].speedup > 1
    assert load_pattern("column_statistics").apply(built.program, answers[0].step).kernels
