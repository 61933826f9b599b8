import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.score import (
    Broken,
    Document,
    Finished,
    Row,
    Speedups,
    break_down,
    geomean,
    is_faster,
    is_slower,
    ratio,
    summarize,
)
from eval.suite import Labels

ratios = st.floats(min_value=1e-6, max_value=1e6)


def finished(
    name: str, status: str, speedup: float | None = None, cautions: tuple[str, ...] = ()
) -> Finished:
    speedups = Speedups(
        eager=speedup,
        compile=speedup,
        best_baseline=speedup,
        interval=(speedup * 0.98, speedup * 1.02) if speedup is not None else None,
    )
    document = Document.model_validate(
        {
            "status": status,
            "task": name,
            "device": "test-cpu-2c",
            "backend": "cpp",
            "speedup": speedups.model_dump(),
            "roofline_fraction": 0.7,
            "trials": 3,
            "seconds": 60.0,
            "usage": {"tokens": 0, "usd": 0.0},
            "best": None,
            "run_dir": "runs/x",
        }
    )
    return Finished(name=name, seconds=61.0, document=document, cautions=cautions)


def broken(name: str) -> Broken:
    return Broken(name=name, seconds=1.0, reason="crashed", error="exit 1: no memory")


ROWS: tuple[Row, ...] = (
    finished("a", "faster", 4.0),
    finished("b", "faster", 1.04),
    finished("c", "correct", 0.5),
    finished("d", "failed"),
    broken("e"),
)


def test_shares_are_of_all_problems_and_failures_stay_in() -> None:
    summary = summarize(ROWS)
    assert summary.correct == pytest.approx(3 / 5)
    assert summary.fast == pytest.approx({"1": 2 / 5, "1.05": 1 / 5, "1.5": 1 / 5, "2": 1 / 5})
    assert summary.failed == ("d", "e")


def test_a_slower_kernel_lowers_the_geomean_and_a_failure_counts_as_one() -> None:
    summary = summarize(ROWS)
    assert summary.geomean == pytest.approx((4.0 * 1.04 * 0.5 * 1.0 * 1.0) ** (1 / 5))
    assert summary.median == 1.0


def test_a_speedup_that_was_not_confirmed_as_a_win_is_not_fast() -> None:
    lucky = finished("lucky", "correct", 1.3)
    assert not is_faster(lucky, 1.0)
    assert summarize([lucky]).fast["1"] == 0.0


def test_a_failed_run_with_a_speedup_on_paper_counts_as_one() -> None:
    assert ratio(finished("x", "failed", 9.0)) == 1.0


def test_a_cautioned_problem_is_kept_out_of_the_speed_scores_and_listed() -> None:
    constant = finished("constant", "faster", 900.0, cautions=("the output is a constant",))
    summary = summarize([*ROWS, constant])
    assert summary.set_aside == ("constant",)
    assert summary.geomean == summarize(ROWS).geomean
    assert summary.fast["2"] == pytest.approx(1 / 6)
    assert summary.correct == pytest.approx(4 / 6)


def test_no_rows_make_no_scores() -> None:
    summary = summarize([])
    assert (summary.problems, summary.correct, summary.geomean, summary.median) == (
        0,
        0,
        None,
        None,
    )


def test_slower_means_by_more_than_the_factor_and_never_a_failure() -> None:
    assert is_slower(finished("x", "correct", 0.95), 1.05)
    assert not is_slower(finished("x", "correct", 0.96), 1.05)
    assert not is_slower(finished("x", "failed", 0.1), 1.05)
    assert not is_slower(broken("x"), 1.05)
    assert summarize(ROWS).slow == pytest.approx(1 / 5)


def test_the_median_time_is_that_of_all_rows_broken_ones_too() -> None:
    assert summarize(ROWS).median_seconds == 61.0
    assert summarize(ROWS[-1:]).median_seconds == 1.0
    assert summarize([]).median_seconds is None


def test_parts_are_scored_as_if_they_were_suites_of_their_own() -> None:
    rows = [
        row.model_copy(update={"labels": Labels(family=family, holdout=holdout)})
        for row, (family, holdout) in zip(
            ROWS,
            [("a", False), ("a", True), ("b", False), ("b", False), ("", True)],
            strict=True,
        )
    ]
    found = break_down(rows)
    assert found.parts == {
        "non-holdout": summarize([rows[0], rows[2], rows[3]]),
        "holdout": summarize([rows[1], rows[4]]),
    }
    assert found.families == {"a": summarize(rows[:2]), "b": summarize(rows[2:4])}
    assert found.kinds == {}


def test_rows_without_labels_belong_to_no_part() -> None:
    assert break_down(ROWS).named == {}


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_what_no_clock_can_measure_is_refused_rather_than_averaged(value: float) -> None:
    with pytest.raises(ValueError, match="not a ratio of times"):
        geomean([2.0, value])


@given(st.lists(ratios, min_size=1, max_size=30))
def test_the_geomean_lies_between_the_extremes(values: list[float]) -> None:
    mean = geomean(values)
    assert mean is not None
    assert min(values) * (1 - 1e-9) <= mean <= max(values) * (1 + 1e-9)


@given(st.lists(ratios, min_size=1, max_size=30))
def test_speedups_and_their_inverses_have_inverse_geomeans(values: list[float]) -> None:
    mean, inverse = geomean(values), geomean([1 / value for value in values])
    assert mean is not None
    assert inverse is not None
    assert mean * inverse == pytest.approx(1.0)


def test_hundreds_of_tiny_ratios_do_not_underflow() -> None:
    assert geomean([1e-5] * 500) == pytest.approx(1e-5)


@given(st.lists(ratios, max_size=20), st.floats(1, 10), st.floats(1, 10))
def test_a_higher_threshold_is_never_met_by_more_problems(
    values: list[float], one: float, other: float
) -> None:
    rows = [finished(str(n), "faster", value) for n, value in enumerate(values)]
    low, high = sorted((one, other))
    assert sum(is_faster(row, high) for row in rows) <= sum(is_faster(row, low) for row in rows)
