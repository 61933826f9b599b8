"""Sums of rows by an index: types, empty bags, indices out of range; what is refused."""

import pytest
import torch

from knowledge.pattern import Refusal, Step, load_pattern
from knowledge.program import Program
from tests.patterns.workshop import SITUATION, build, complaints, function

SCATTER = (Step(pattern="scatter"),)
CASES = {
    "messages": (
        "x, i, m", "x.index_add(0, i, m)",
        "torch.randn(50, 33), torch.randint(0, 50, (700,)), torch.randn(700, 33)",
    ),
    "messages from nothing": (
        "x, i, m", "torch.zeros_like(x).index_add(0, i, m, alpha=-0.5)",
        "torch.randn(50, 33).double(), torch.randint(0, 50, (700,)).int(), "
        "torch.randn(700, 33).double()",
    ),
    "numbers": (
        "x, i, m", "x.index_add(0, i, m)",
        "torch.randn(50), torch.randint(0, 50, (700,)), torch.randn(700)",
    ),
    "planes": (
        "x, i, m", "x.index_add(0, i, m)",
        "torch.randn(5, 3, 40), torch.randint(0, 5, (90,)), torch.randn(90, 3, 40)",
    ),
    **{
        mode: (
            "w, i, o", f"F.embedding_bag(i, w, o, mode='{mode}')",
            "torch.randn(50, 33), torch.randint(0, 50, (700,)), "
            "torch.tensor([0, 5, 5, 300, 699])",
        )
        for mode in ("sum", "mean", "max")
    },
    "bags of one size": (
        "w, i", "F.embedding_bag(i, w, mode='mean')",
        "torch.randn(50, 33), torch.randint(0, 50, (40, 7))",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rows_are_summed_as_the_library_does(name: str) -> None:
    built = build(function(*CASES[name]), SCATTER)
    assert len(built.program.kernels) == 1
    assert not [n for n in built.program.library_calls if n.target.startswith("aten.zeros")]
    assert complaints(built) == []
    turned = [v.t().contiguous().t() if v.dim() == 2 else v for v in built.inputs]
    assert complaints(built, turned) == []


def bags(mode: str, width: int, dtype: str, index: str) -> str:
    """40 bags, most of other sizes, some empty: the first, the last and one in between."""
    sizes = "torch.tensor([0, 1, 0, 70, *[3, 17] * 17, 2, 0])"
    whole = f"torch.{index}"
    return function(
        "w, i, o", f"F.embedding_bag(i, w, o, mode='{mode}')",
        f"torch.randn(90, {width}, dtype=torch.{dtype}), "
        f"torch.randint(0, 90, (413,)).to({whole}), "
        f"torch.cumsum(torch.cat([torch.tensor([0]), {sizes}]), 0)[:-1].to({whole})",
    )  # fmt: skip


# Narrower than a vector, whole vectors, one more and one less, more than the registers hold.
@pytest.mark.parametrize("width", [1, 5, 8, 9, 31, 96, 130, 300])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_any_width_and_size_are_right(mode: str, width: int) -> None:
    dtype, index = ("float64", "int32") if width in (5, 31, 130) else ("float32", "int64")
    built = build(bags(mode, width, dtype, index), SCATTER)
    assert complaints(built) == []
    one_bag = [*built.inputs[:2], torch.zeros(1, dtype=built.inputs[2].dtype)]
    assert complaints(built, one_bag) == []


@pytest.mark.parametrize("width", [3, 40])
def test_a_bag_keeps_the_first_of_its_largest_as_the_library_does(width: int) -> None:
    built = build(bags("max", width, "float32", "int64"), SCATTER)
    weight, index, starts = (value.clone() for value in built.inputs)
    weight[::7], weight[3] = float("nan"), float("-inf")
    index[:1], index[20:40] = 3, 3
    ours = built.candidate()(weight, index, starts)
    theirs = built.model(weight, index, starts)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_sums_are_the_same_on_any_number_of_threads() -> None:
    built = build(function(*CASES["messages"]), SCATTER)
    candidate, given = built.candidate(), [torch.randn(900, 33), torch.randint(0, 900, (5000,))]
    given.append(torch.randn(5000, 33))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = candidate(*given)
        torch.set_num_threads(3)
        assert torch.equal(candidate(*given), alone)
    finally:
        torch.set_num_threads(before)


def test_other_numbers_of_rows_and_nan_are_right() -> None:
    built = build(function(*CASES["messages"]), SCATTER)
    x, m = torch.randn(7, 33), torch.randn(20000, 33)
    m[5, 3], x[2, 1] = float("nan"), float("inf")
    assert complaints(built, [x, torch.randint(0, 7, (20000,)), m]) == []


@pytest.mark.parametrize("name", ["messages", "sum"])
@pytest.mark.parametrize("wrong", [-1, 50, 2**40])
def test_an_index_out_of_range_is_an_error(name: str, wrong: int) -> None:
    built = build(function(*CASES[name]), SCATTER)
    given = [value.clone() for value in built.inputs]
    given[1][-1] = wrong
    with pytest.raises(IndexError, match="out of range"):
        built.candidate()(*given)


@pytest.mark.parametrize(
    ("arguments", "expression", "inputs", "why"),
    [
        ("x, i, m", "x.index_add(1, i, m)",
         "torch.ones(3, 9), torch.arange(4), torch.ones(3, 4)", "another than the first dimension"),
        ("x, i, m", "x.index_add(0, i, m)",
         "torch.ones(9, 3).half(), torch.arange(4), torch.ones(4, 3).half()", "float16"),
        ("w, i, o, s", "F.embedding_bag(i, w, o, mode='sum', per_sample_weights=s)",
         "torch.ones(9, 3), torch.arange(4), torch.tensor([0, 2]), torch.ones(4)", "weights"),
        ("x", "torch.relu(x)", "torch.ones(3)", "sums nothing by an index"),
    ],
)  # fmt: skip
def test_what_it_can_not_sum_is_refused(
    arguments: str, expression: str, inputs: str, why: str
) -> None:
    source = function(arguments, expression, inputs)
    answer = load_pattern("scatter").propose(Program.of(build(source, ()).graph, source), SITUATION)
    assert isinstance(answer, Refusal)
    assert why in answer.reason


def test_a_proposal_says_what_it_should_gain() -> None:
    source = function(*CASES["messages"])
    answer = load_pattern("scatter").propose(Program.of(build(source, ()).graph, source), SITUATION)
    assert not isinstance(answer, Refusal)
    assert answer[0].title == "1 sum of rows by an index"
    assert answer[0].arithmetic
