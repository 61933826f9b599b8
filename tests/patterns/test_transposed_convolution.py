"""Transposed convolutions by output phase: all windows, sizes at run time, what is refused."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.pattern import Refusal, Step, load_pattern
from knowledge.patterns.transposed_convolution.phases import Axis, choose_layout
from tests.patterns.workshop import SITUATION, Built, build, complaints, function, reference

NAME = "transposed_convolution"
ALONE = (Step(pattern=NAME),)
FAST = settings(max_examples=5, suppress_health_check=list(HealthCheck))
# For each: spatial dimensions, window, and the other arguments.
WINDOWS = {
    "3x3 stride 2": (2, (3, 3), "stride=2, padding=1, output_padding=1"),
    "4x4 stride 2": (2, (4, 4), "stride=2, padding=1, groups=2"),
    "2x5 stride 3x1 dilation 2x3": (2, (2, 5), "stride=(3, 1), padding=(0, 7), dilation=(2, 3)"),
    "dilation shares a factor with stride": (2, (3, 2), "stride=(4, 2), padding=2, dilation=2"),
    "9 stride 4": (1, (9,), "stride=4, padding=3, output_padding=2"),
    "2 stride 5": (1, (2,), "stride=5, output_padding=4, groups=3"),
    "3x2x4 stride 2x1x3": (3, (3, 2, 4), "stride=(2, 1, 3), padding=(1, 0, 2)"),
}


def functional(which: str, expression: str = "{}") -> tuple[str, int, tuple[int, ...], int]:
    """A reference whose weight is an argument, so that all sizes are free; and what is fixed."""
    rank, window, given_arguments = WINDOWS[which]
    groups = int(given_arguments.rpartition("groups=")[2]) if "groups" in given_arguments else 1
    call = f"F.conv_transpose{rank}d(x, w, b, {given_arguments})"
    spatial = (12, 11, 10)[:rank]
    inputs = (
        f"torch.randn(3, {6 * groups}, {', '.join(map(str, spatial))}), "
        f"torch.randn({6 * groups}, 5, {', '.join(map(str, window))}), torch.randn({5 * groups})"
    )
    return function("x, w, b", expression.format(call), inputs), rank, window, groups


def drawn(rank: int, window: tuple[int, ...], groups: int, sizes: list[int]) -> list[torch.Tensor]:
    """Inputs of these sizes that are not contiguous."""
    batch, ins, outs, *spatial = sizes
    shape = (batch, *spatial[:rank], ins * groups)
    x = torch.randn(shape).movedim(-1, 1)
    weight = torch.randn(ins * groups, outs, *window, 2)[..., 0]
    return [x, weight, torch.randn(outs * groups, 3)[:, 1]]


@pytest.mark.parametrize("which", WINDOWS)
@FAST
@given(st.tuples(st.integers(1, 3), *[st.integers(1, 19)] * 2, *[st.integers(5, 20)] * 3))
def test_any_window_at_any_size(which: str, sizes: tuple[int, ...]) -> None:
    source, rank, window, groups = functional(which)
    built = build(source, ALONE)
    assert not built.program.library_calls
    assert complaints(built, drawn(rank, window, groups, list(sizes))) == []


def test_rows_of_many_channels_and_long_rows_are_right() -> None:
    source, rank, window, groups = functional("3x3 stride 2")
    inputs = drawn(rank, window, groups, [1, 300, 70, 37, 150])
    assert complaints(build(source, ALONE), inputs) == []


@pytest.mark.parametrize("which", ["4x4 stride 2", "3x3 stride 2"])
def test_nan_and_infinity_stay_where_the_reference_has_them(which: str) -> None:
    source, rank, window, groups = functional(which)
    x, weight, bias = drawn(rank, window, groups, [2, 3, 4, 9, 8])
    x[0, 0, 4, 4], x[1, 1, 0, 7] = float("nan"), float("inf")
    assert complaints(build(source, ALONE), [x, weight, bias]) == []


@pytest.mark.parametrize("setting", [{"panels": 8}, {"panels": 2, "merge": False}])
def test_every_tunable_keeps_the_result(setting: dict[str, int | bool]) -> None:
    source, *_ = functional("4x4 stride 2")
    step = Step(pattern=NAME, parameters={**setting})
    assert complaints(build(source, (step,))) == []


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("F.gelu({}) * 0.7", 0),
        ("torch.softmax({}, 1)", 0),
        ("F.group_norm(torch.tanh({}), 5)", 0),
        ("{}.mean((2, 3), keepdim=True).clamp(min=0)", 0),
        ("(lambda y: (torch.sigmoid(y), y.cumsum(1)))({})", 1),
    ],
)
def test_what_follows_is_done_in_cache(expression: str, kept: int) -> None:
    built = build(functional("3x3 stride 2", expression)[0], ALONE)
    kernel = built.program.kernels[0]
    assert len(kernel.nodes) > 1
    assert len(built.program.library_calls) == kept
    assert complaints(built) == []
    batches = [torch.randn(5, *built.inputs[0].shape[1:]), *built.inputs[1:]]
    assert complaints(built, batches) == []


def test_a_module_with_groups_and_no_bias_takes_other_batches() -> None:
    body = """    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose3d(4, 8, 3, stride=2, groups=2, bias=False)

    def forward(self, x):
        return torch.relu(self.up(x))"""
    built = build(reference(body, "torch.randn(2, 4, 5, 6, 7)"), ALONE)
    for batch in (1, 2, 5):
        assert complaints(built, [torch.randn(batch, 4, 5, 6, 7)]) == []


def test_the_result_is_the_same_to_the_bit_whatever_the_number_of_threads() -> None:
    built: Built = build(functional("3x3 stride 2")[0], ALONE)
    candidate, threads = built.candidate(), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(candidate(*built.inputs))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ("torch.randn(2, 3, 5, 5).double(), torch.randn(3, 4, 3, 3).double()", "not float64"),
        ("torch.randn(2, 3, 5, 5).bfloat16(), torch.randn(3, 4, 3, 3).bfloat16()", "not bfloat16"),
        ("torch.randn(3, 5, 5), torch.randn(3, 4, 3, 3)", "no batch dimension"),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_reason(inputs: str, sentence: str) -> None:
    source = function("x, w", "F.conv_transpose2d(x, w)", inputs)
    program = build(source, ()).program
    answer = load_pattern(NAME).propose(program, SITUATION)
    assert isinstance(answer, Refusal)
    assert sentence in answer.reason
    with pytest.raises(ValueError, match=sentence):
        load_pattern(NAME).apply(program, ALONE[0])


def test_another_window_is_told_when_it_comes() -> None:
    built = build(functional("3x3 stride 2")[0], ALONE)
    x, _, bias = built.inputs
    with pytest.raises(ValueError, match="made for a window of 3 x 3"):
        built.candidate()(x, torch.randn(6, 5, 2, 4), bias)


def test_proposals_reckon_with_what_both_kernels_reach() -> None:
    program = build(functional("4x4 stride 2")[0], ()).program
    proposals = load_pattern(NAME).propose(program, SITUATION)
    assert isinstance(proposals, list)
    assert proposals[0].step.parameters == {"panels": 4, "merge": True}
    assert proposals[0].speedup > proposals[1].speedup
    assert "GFLOP/s" in proposals[0].arithmetic
    for proposal in proposals:
        assert load_pattern(NAME).apply(program, proposal.step).kernels


def test_a_call_that_is_taken_already_is_left_alone() -> None:
    program = build(functional("4x4 stride 2")[0], ALONE).program
    assert isinstance(load_pattern(NAME).propose(program, SITUATION), Refusal)


def test_phases_share_tiles_only_where_their_shifts_are_the_same() -> None:
    unit = Axis(window=1, stride=1, padding=0, dilation=1, extra=0, size=1)
    for window, kinds in ((4, 1), (3, 4)):
        axis = Axis(window=window, stride=2, padding=1, dilation=1, extra=0, size=64)
        layout = choose_layout((axis, unit, axis), 64, 3, merge=True)
        assert len(layout.kinds) == kinds
