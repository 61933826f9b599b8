import pytest
import torch

from tools.judge.compare import (
    compare,
    expect,
    luckless,
    relative_errors,
    strained,
    typical_error,
    usual_size,
)
from tools.task import Tolerance

TOLERANCE = Tolerance()


def judged(output, truth, reference=None, precision="strict"):
    reference = truth.to(output.dtype) if reference is None else reference
    expected = expect(truth, reference)
    typical = typical_error([relative_errors(expected)]) if truth.dtype.is_floating_point else 0.0
    return compare(output, expected, typical, TOLERANCE, precision)


@pytest.fixture
def truth():
    return torch.randn(50, 200, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_the_rounded_truth_passes_with_room_to_spare(truth):
    match = judged(truth.float(), truth)
    assert match.passed
    assert match.worst < 0.5


def test_one_wrong_element_of_ten_thousand_fails(truth):
    output = truth.float()
    output[7, 9] += 0.01
    match = judged(output, truth)
    assert match.wrong == 1
    assert f"element {7 * 200 + 9} " in match.detail


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e30])
def test_the_tolerance_scales_with_the_values(truth, scale):
    good = (truth * scale).float()
    assert judged(good, truth * scale).passed
    assert not judged(good * 1.0001, truth * scale).passed
    assert not judged(torch.zeros_like(good), truth * scale).passed


def test_a_row_of_small_values_is_held_to_its_own_size(truth):
    truth[3] *= 1e-6
    output = truth.float()
    output[3] = 0
    match = judged(output, truth)
    assert match.wrong > 150


def test_bfloat16_accuracy_passes_only_where_half_precision_is_admitted(truth):
    output = truth.bfloat16().float()
    assert not judged(output, truth).passed
    assert judged(output, truth, precision="half").passed


def test_the_references_own_error_is_the_yardstick(truth):
    reference = (truth + 1e-4 * torch.sign(truth)).float()
    assert judged((truth - 2e-4).float(), truth, reference).passed
    assert not judged((truth - 2e-2).float(), truth, reference).passed


def test_one_group_in_which_the_reference_is_bad_excuses_no_other_group(truth):
    reference = truth.float()
    reference[0] += 1.0
    output = truth.float()
    output[0] += 2.0
    assert judged(output, truth, reference).passed
    output[1] += 2.0
    assert not judged(output, truth, reference).passed


def test_nan_and_infinity_pass_only_where_they_belong(truth):
    truth[0, 0], truth[0, 1], truth[0, 2] = float("nan"), float("inf"), float("-inf")
    output = truth.float()
    assert judged(output, truth).passed
    for place, value in [
        ((0, 0), 0.0),
        ((0, 1), 1e38),
        ((0, 2), float("inf")),
        ((5, 5), float("nan")),
    ]:
        wrong = output.clone()
        wrong[place] = value
        assert judged(wrong, truth).wrong == 1


def test_an_overflow_of_the_references_own_may_be_avoided_or_shared():
    truth = torch.full((1, 100), 1e39, dtype=torch.float64)
    reference = torch.full((1, 100), float("inf"))
    assert judged(reference.clone(), truth, reference).passed
    assert not judged(torch.zeros(1, 100), truth, reference).passed


def test_integers_and_flags_must_be_exact():
    truth = torch.arange(100)
    wrong = truth.clone()
    wrong[50] += 1
    assert judged(truth.clone(), truth, truth).passed
    assert judged(wrong, truth, truth).wrong == 1
    flags = truth % 2 == 0
    assert not judged(~flags, flags, flags).passed


def test_where_rounding_decides_between_integers_either_choice_passes():
    truth, reference = torch.tensor([3, 7]), torch.tensor([3, 8])
    assert judged(torch.tensor([3, 8]), truth, reference).passed
    assert judged(torch.tensor([3, 7]), truth, reference).passed
    assert not judged(torch.tensor([3, 9]), truth, reference).passed


def test_a_scalar_is_judged_by_its_own_size():
    truth = torch.tensor(2.5, dtype=torch.float64)
    assert judged(torch.tensor(2.5000002), truth).passed
    assert not judged(torch.tensor(2.501), truth).passed


def test_complex_outputs_are_judged_in_both_parts():
    truth = torch.randn(8, 100, dtype=torch.complex128)
    good = truth.to(torch.complex64)
    assert judged(good, truth, good).passed
    assert not judged(good.conj().resolve_conj(), truth, good).passed


def attention(query, key, value):
    return torch.softmax(query @ key.transpose(-2, -1), dim=-1) @ value


def test_a_lucky_reference_condemns_nobody_where_the_last_bits_decide():
    chance = torch.Generator().manual_seed(5)
    query, key, value = torch.randn(3, 40, 64, generator=chance, dtype=torch.float64) * 32
    key[1] = key[0] + 1e-3 * torch.randn(64, generator=chance, dtype=torch.float64)
    query[0] = key[0]
    truth = attention(query, key, value)
    lucky = expect(truth, truth.float())
    typical = typical_error([relative_errors(lucky)])
    rounded = attention(query.float(), key.float(), value.float())
    assert not compare(rounded, lucky, typical, TOLERANCE, "strict").passed

    moves = 1 + 2**-23 * (torch.rand(8, 40, 1, generator=chance, dtype=torch.float64) * 2 - 1)
    fair = luckless(lucky, 0.0)
    for move in moves:
        fair = strained(fair, attention(query, key * move, value))
    assert compare(rounded, fair, typical, TOLERANCE, "strict").passed
    coarse = attention(query.float(), key.float(), value.bfloat16().float())
    assert not compare(coarse, fair, typical, TOLERANCE, "strict").passed


def test_what_cancels_altogether_is_held_to_the_outputs_usual_size():
    truth = torch.zeros(4, 100, dtype=torch.float64)
    truth[0] = 1.0
    left = torch.full((4, 100), 2e-7)
    left[0] = 1.0
    strict = expect(truth, truth.float())
    assert not compare(left, strict, 0.0, TOLERANCE, "strict").passed
    fair = luckless(strict, usual_size(strict))
    assert compare(left, fair, 0.0, TOLERANCE, "strict").passed
    assert not compare(left * 100, fair, 0.0, TOLERANCE, "strict").passed


def test_a_tail_that_is_left_of_larger_terms_may_be_off_by_their_rounding():
    x = torch.linspace(-6, 6, 6400, dtype=torch.float64).reshape(100, 64)
    truth = torch.nn.functional.gelu(x)
    strict = expect(truth, truth.float())
    clipped = torch.where(truth.abs() < 4e-7, 0.0, truth).float()
    assert not compare(clipped, strict, 0.0, TOLERANCE, "strict").passed
    fair = luckless(strict, usual_size(strict))
    assert compare(clipped, fair, 0.0, TOLERANCE, "strict").passed
    assert not compare(
        torch.where(truth.abs() < 4e-5, 0.0, truth).float(), fair, 0.0, TOLERANCE, "strict"
    ).passed
