"""Fusion: ranks, not scores, decide, and no page crowds out the others."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge.fusion import Fusion, merge
from knowledge.store import Library

RANKINGS = st.lists(
    st.tuples(st.floats(0.1, 4.0), st.permutations(range(6)).map(lambda order: order[:4])),
    min_size=1,
    max_size=4,
)


def test_first_everywhere_scores_one() -> None:
    scores = merge([(0.5, {7: 1, 8: 2}), (2.0, {7: 1, 9: 2})], 10)
    assert scores[7] == pytest.approx(1.0)
    assert next(iter(scores)) == 7


def test_agreement_of_two_rankings_beats_the_lead_in_one() -> None:
    scores = merge([(1.0, {1: 1, 3: 2}), (1.0, {2: 1, 3: 2})], 10)
    assert next(iter(scores)) == 3


def test_a_heavier_ranking_decides() -> None:
    assert list(merge([(1.0, {1: 1}), (2.0, {2: 1})], 10)) == [2, 1]


@given(RANKINGS, st.integers(1, 60))
def test_scores_fall_and_lie_in_the_unit_interval(
    rankings: list[tuple[float, list[int]]], k: int
) -> None:
    ranked = [
        (weight, {item: rank for rank, item in enumerate(order, 1)}) for weight, order in rankings
    ]
    scores = list(merge(ranked, k).values())
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 < score <= 1.0 + 1e-9 for score in scores)


def test_a_ranking_of_no_weight_is_not_asked(library: Library, project: Path) -> None:
    alone = Library.open(library.folder, project=project, fusion=Fusion(passages=0, pages=0))
    words = Library.open(library.folder, project=project, fusion=Fusion(dense=0))
    # Vectors always have a nearest; words that no page has lead nowhere.
    assert words.search("zyzzyva") == []
    assert alone.search("zyzzyva") != []
