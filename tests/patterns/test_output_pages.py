"""Large outputs on huge pages: when proposed, when refused, and that no value changes."""

import pytest

from knowledge.emit import emit
from knowledge.pattern import Refusal, Step, load_pattern
from tests.patterns.workshop import FUSED, SITUATION, build, complaints, function

LARGE = function("x", "x * 2.0", "torch.randn(2048, 4096)")
SMALL = function("x", "x * 2.0", "torch.randn(64, 64)")
PAGES = (*FUSED, Step(pattern="output_pages"))


def test_a_large_output_is_put_on_huge_pages_and_its_values_stay() -> None:
    built = build(LARGE, PAGES)
    assert "_empty_on_huge_pages(x.shape, torch.float32)" in built.source
    assert complaints(built) == []


def test_the_gain_is_the_faults_saved() -> None:
    answer = load_pattern("output_pages").propose(build(LARGE, FUSED).program, SITUATION)
    assert isinstance(answer, list)
    # 32 MiB are 8192 faults of 0.25 us: 2.05 ms.
    assert "8192 page faults" in answer[0].arithmetic
    assert "saves 2.04" in answer[0].arithmetic
    assert answer[0].speedup > 1


@pytest.mark.parametrize(
    ("source", "steps", "huge", "reason"),
    [
        (LARGE, FUSED, True, "malloc gives every process huge pages here"),
        (SMALL, FUSED, False, "recycled by malloc without page faults"),
        (LARGE, (), False, "No kernel of our own writes an output"),
        (LARGE, PAGES, False, "on huge pages already"),
    ],
)
def test_it_is_refused_where_it_would_gain_nothing(
    source: str, steps: tuple[Step, ...], huge: bool, reason: str
) -> None:
    situation = SITUATION.model_copy(update={"huge_pages": huge})
    answer = load_pattern("output_pages").propose(build(source, steps).program, situation)
    assert isinstance(answer, Refusal)
    assert reason in answer.reason


def test_small_outputs_bring_no_page_code_along() -> None:
    program = build(SMALL, FUSED).program.changed(huge_pages=True)
    assert "madvise" not in emit(program)


def test_there_is_nothing_to_apply_it_to_without_kernels() -> None:
    with pytest.raises(ValueError, match="no kernel of our own"):
        load_pattern("output_pages").apply(build(LARGE, ()).program, Step(pattern="output_pages"))
