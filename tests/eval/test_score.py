import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.problem import Labels
from eval.rows import Broken, Document, Finished, Row, Skipped, Speedups
from eval.score import (
    break_down,
    geomean,
    has_own_kernel,
    is_faster,
    is_slower,
    ratio,
    summarize,
)
from tools.facts import BLIND, CONSTANT

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
    assert summary.fast == pytest.approx(
        {"1": 2 / 5, "1.05": 1 / 5, "1.5": 1 / 5, "2": 1 / 5, "5": 0.0}
    )
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


CANARY = BLIND.format(what="all zeros")


@pytest.mark.parametrize("caution", [CONSTANT, CANARY])
def test_a_task_that_tells_nothing_is_kept_out_of_the_speed_scores_and_listed(caution: str) -> None:
    telling = summarize(ROWS)
    summary = summarize([*ROWS, finished("nothing", "faster", 900.0, cautions=(caution,))])
    assert summary.set_aside == ("nothing",)
    assert summary.constants == (("nothing",) if caution == CONSTANT else ())
    assert summary.canaries == (("nothing",) if caution == CANARY else ())
    assert summary.geomean == telling.geomean
    assert summary.fast["2"] == pytest.approx(1 / 6)
    assert summary.correct == pytest.approx(4 / 6)
    assert telling.geomean is not None
    assert summary.geomean_of_all == pytest.approx((telling.geomean**5 * 900.0) ** (1 / 6))


def test_a_caution_on_something_else_sets_nothing_aside() -> None:
    row = finished("x", "faster", 2.0, cautions=("the reference changes its own inputs",))
    assert summarize([row]).set_aside == ()


def test_what_this_machine_cannot_hold_counts_in_no_score_and_is_listed() -> None:
    summary = summarize([*ROWS, Skipped(name="huge", seconds=3.0, error="needs 900 GiB")])
    assert summary.skipped == ("huge",)
    assert summary.model_copy(update={"skipped": ()}) == summarize(ROWS)


def timed(milliseconds: float, bound: float, **speedups: float) -> Finished:
    """A correct kernel at a bound and a time, with its speedups over baselines."""
    row = finished("x", "correct", min(speedups.values()))
    baselines = {n: {"ms": r * milliseconds, "speedup": r} for n, r in speedups.items()}
    told = {
        "baselines": baselines,
        "candidate_ms": milliseconds,
        "roofline_fraction": bound / milliseconds,
    }
    document = Document.model_validate(row.document.model_dump() | told)
    return row.model_copy(update={"document": document})


def test_the_sol_score_is_a_half_at_the_fastest_baseline_and_one_at_the_bound() -> None:
    assert timed(4.0, 1.0, eager=3.0, compile=1.0).sol == pytest.approx(0.5)
    assert timed(1.0, 1.0, eager=8.0, compile=4.0).sol == pytest.approx(1.0)
    assert timed(2.0, 1.0, eager=4.0, compile=2.0).sol == pytest.approx(1 / (1 + 1 / 3))
    assert timed(8.0, 1.0, eager=0.5).sol == pytest.approx(1 / (1 + 7 / 3))


def test_there_is_no_sol_score_where_the_baseline_is_at_the_bound_or_no_time_is_known() -> None:
    assert timed(1.0, 1.0, eager=1.0).sol is None
    assert finished("x", "faster", 2.0).sol is None


def test_the_mean_sol_score_takes_a_failure_as_nothing_and_leaves_out_what_has_none() -> None:
    rows = [timed(4.0, 1.0, eager=1.0), broken("b"), timed(1.0, 1.0, eager=1.0)]
    assert summarize(rows).sol == pytest.approx(0.25)
    assert summarize([broken("b")]).sol is None


def test_costs_are_a_mean_over_all_that_were_judged() -> None:
    row = finished("x", "faster", 2.0)
    paid = row.document.model_copy(update={"usage": {"tokens": 3000, "usd": 0.3}})
    summary = summarize([row.model_copy(update={"document": paid}), broken("b"), broken("c")])
    assert (summary.tokens, summary.usd) == (pytest.approx(1000), pytest.approx(0.1))
    assert summary.seconds == pytest.approx(21.0)


def test_pass_at_1_is_the_mean_share_of_right_samples_and_none_without_samples() -> None:
    samples = [
        {"file": "a.py", "number": 0, "verdict": "correct"},
        {"file": "b.py", "number": 1, "verdict": "wrong_output"},
    ]
    row = finished("x", "faster", 2.0)
    document = Document.model_validate(row.document.model_dump() | {"samples": samples})
    sampled = row.model_copy(update={"document": document})
    assert summarize([sampled, broken("none")]).pass_at_1 == pytest.approx(0.25)
    assert summarize(ROWS).pass_at_1 is None


def test_a_baseline_in_a_kernels_place_is_no_kernel_of_ones_own() -> None:
    kept = finished("x", "correct", 1.0)
    assert not has_own_kernel(kept)
    assert has_own_kernel(kept.model_copy(update={"verdicts": {"correct": 1, "crashed": 2}}))
    assert not has_own_kernel(broken("b"))


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


def test_what_broken_runs_spent_is_in_the_mean() -> None:
    paid = finished("a", "faster", 4.0)
    usage = {"tokens": 1000, "usd": 0.2}
    paid = paid.model_copy(update={"document": paid.document.model_copy(update={"usage": usage})})
    lost = broken("e").model_copy(update={"tokens": 3000, "usd": 1.0})
    summary = summarize((paid, lost))
    assert summary.tokens == 2000
    assert summary.usd == pytest.approx(0.6)
