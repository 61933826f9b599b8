"""Terms: an identifier survives whole and in parts, words by their stems, synonyms share a term."""

from pathlib import Path

import pytest

from knowledge.words import SYNONYMS, rules, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smsp__inst_executed.avg", "smsp__inst_executed.avg smsp__inst_executed smsp inst avg"),
        ("use tl.dot here", "tl.dot tl dot"),
        ("cp.async.cg", "cp.async.cg cp cg"),
        ("g++ -O3 -fopt-info-vec-missed", "g++ o3 fopt-info-vec-missed info vec"),
        ("aten::copy_", "aten::copy_ aten"),
        ("cudaLaunchKernel", "cudalaunchkernel cuda launch kernel"),
        ("_mm512_load_ps", "mm512_load_ps mm512 load ps"),
        ("GOMP_parallel", "gomp_parallel gomp"),
    ],
)
def test_an_identifier_survives_whole_and_in_parts(text: str, expected: str) -> None:
    assert set(expected.split()) <= set(terms(text))


def test_a_sentences_full_stop_is_no_part_of_a_name() -> None:
    assert "cache." not in terms("It fits the cache. Then")
    assert set(terms("cache.")) == set(terms("cache"))


@pytest.mark.parametrize(
    ("one", "other"),
    [("vectorized", "vectorised"), ("reductions", "reduction"), ("Softmax", "softmax")],
)
def test_spellings_and_endings_of_a_word_are_one_term(one: str, other: str) -> None:
    assert terms(one) == terms(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("matmul", "matrix multiplication"), ("smem", "shared memory"), ("bf16", "bfloat16")],
)
def test_what_means_the_same_shares_a_term_and_keeps_its_own(one: str, other: str) -> None:
    shared = set(terms(one)) & set(terms(other))
    assert shared
    assert all(term.startswith("=") for term in shared)
    assert set(terms(one)) - shared


def test_words_around_a_symptom_are_silent() -> None:
    assert terms("Why is my the, and what do I do?") == []


def test_every_variant_of_a_synonym_has_terms() -> None:
    lines = SYNONYMS.read_text(encoding="utf-8").splitlines()
    variants = [
        each.strip() for line in lines if not line.startswith("#") for each in line.split(",")
    ]
    assert len(variants) > 100
    assert all(terms(variant) for variant in variants)


def test_another_list_of_synonyms_is_another_set_of_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rules.__wrapped__()
    (tmp_path / "synonyms.txt").write_text("fast, quick\n")
    monkeypatch.setattr("knowledge.words.SYNONYMS", tmp_path / "synonyms.txt")
    assert rules.__wrapped__() != before
