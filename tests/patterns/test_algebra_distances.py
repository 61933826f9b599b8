"""Euclidean distances as products: exact, fused with what follows, and as far off as torch's."""

import pytest

from knowledge.pattern import Step
from tests.patterns.test_algebra import check, rewritten
from tests.patterns.workshop import build, complaints, function

STEPS = (Step(pattern="algebra"), Step(pattern="matmul"), Step(pattern="row_loop"))
WORDS = "distances are roots of a product"
POINTS = "torch.randn(64, 16), torch.randn(40, 16)"


@pytest.mark.parametrize(
    ("expression", "inputs"),
    [
        ("torch.exp(-torch.cdist(x, y) ** 2 * 0.1)", POINTS),
        ("torch.cdist(x, y).argmin(1)", POINTS),
        ("torch.cdist(x, y)", "torch.randn(3, 5, 8), torch.randn(3, 26, 8)"),
        ("torch.cdist(x, y)", "torch.randn(3, 30, 8), torch.randn(26, 8)"),
        (
            "torch.cdist(x, y, compute_mode='use_mm_for_euclid_dist')",
            "torch.randn(3, 8), torch.randn(5, 8)",
        ),
    ],
)
def test_distances_are_exact_and_fused_into_a_product(expression: str, inputs: str) -> None:
    source = function("x, y", expression, inputs)
    check(source, WORDS)
    built = build(source, STEPS)
    left = {call.target.split(".")[1] for call in built.program.library_calls}
    assert left <= {"cat"}
    assert complaints(built) == []


def test_a_point_is_as_far_from_itself_as_torch_has_it() -> None:
    source = function("x", "torch.cdist(x, x)", "torch.randn(40, 16)")
    assert complaints(build(source, STEPS)) == []


@pytest.mark.parametrize(
    ("expression", "inputs"),
    [
        ("torch.cdist(x, y)", "torch.randn(25, 8), torch.randn(25, 8)"),
        ("torch.cdist(x, y, 1.0)", POINTS),
        ("torch.cdist(x, y, compute_mode='donot_use_mm_for_euclid_dist')", POINTS),
    ],
)
def test_distances_that_torch_sums_from_differences_stay(expression: str, inputs: str) -> None:
    assert rewritten(function("x, y", expression, inputs))[0] == []
