"""Figures of several workloads as one: means that agree with each other, and honest intervals."""

import math
import random
import statistics

import pytest

from tools.facts import Baseline, Baselines, ReferenceFacts, Roofline, WorkloadFacts
from tools.judge.combine import combined, combined_baselines, combined_roofline, combined_timing
from tools.verdict import Comparison, Timing, WorkloadTiming


def comparison(baseline: str, speedup: float, spread: float = 1.1) -> Comparison:
    return Comparison(
        baseline=baseline, baseline_ms=speedup * 2.0, candidate_ms=2.0, speedup=speedup,
        low=speedup / spread, high=speedup * spread, blocks=10,
    )  # fmt: skip


def workload(name: str, noise: float = 0.01, **speedups: float) -> WorkloadTiming:
    rows = tuple(comparison(baseline, speedup) for baseline, speedup in speedups.items())
    timing = Timing(
        candidate_ms=2.0, comparisons=rows, noise=noise, page_faults=4.0, checked_outputs=8
    )
    return WorkloadTiming(name=name, timing=timing)


def test_the_headline_is_the_geomean_over_each_workloads_own_fastest_baseline() -> None:
    timing = combined_timing(
        [workload("a", eager=4.0, compile=2.0), workload("b", eager=1.0, compile=3.0)]
    )
    by_name = {row.baseline: row.speedup for row in timing.comparisons}
    assert by_name == pytest.approx(
        {"eager": 2.0, "compile": math.sqrt(6.0), "fastest": math.sqrt(2.0)}
    )
    assert timing.against_best.baseline == "fastest"
    assert timing.lead.comparisons[0].speedup == 4.0


def test_the_same_fastest_baseline_needs_no_other_name() -> None:
    timing = combined_timing(
        [workload("a", eager=2.0, compile=4.0), workload("b", eager=8.0, compile=9.0)]
    )
    assert [row.baseline for row in timing.comparisons] == ["eager", "compile"]
    assert timing.against_best.speedup == pytest.approx(4.0)


def test_workloads_timed_against_one_baseline_each_are_put_together() -> None:
    timing = combined_timing([workload("a", eager=2.0), workload("b", compile=8.0)])
    assert [row.baseline for row in timing.comparisons] == ["fastest"]
    assert timing.against_best.speedup == pytest.approx(4.0)


def test_one_loss_can_take_a_win_away() -> None:
    won = combined_timing([workload("a", eager=1.5), workload("b", eager=1.5)])
    lost = combined_timing([workload("a", eager=1.5), workload("b", eager=0.5)])
    assert (won.faster, lost.faster) == (True, False)


def test_noise_is_that_of_workloads_that_all_err_the_same_way() -> None:
    timing = combined_timing([workload("a", noise=0.1, eager=2.0), workload("b", 0.1, eager=2.0)])
    assert timing.noise == pytest.approx(0.1)


def test_the_interval_of_one_is_its_own_and_of_equals_shrinks_with_their_root() -> None:
    one = comparison("eager", 2.0)
    assert combined("eager", [one]).low == pytest.approx(one.low)
    four = combined("eager", [one] * 4)
    assert math.log(four.speedup / four.low) == pytest.approx(math.log(1.1) / 2)
    assert four.blocks == 40


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    chance, covered, runs = random.Random(1), 0, 2000
    truths, errors = (0.2, 0.9, -0.3), (0.02, 0.1, 0.05)
    for _ in range(runs):
        rows = []
        for truth, error in zip(truths, errors, strict=True):
            read = math.exp(chance.gauss(truth, error))
            reach = math.exp(1.96 * error)
            rows.append(
                Comparison(
                    baseline="eager",
                    baseline_ms=read,
                    candidate_ms=1.0,
                    speedup=read,
                    low=read / reach,
                    high=read * reach,
                    blocks=10,
                )
            )
        found = combined("eager", rows)
        covered += found.low <= math.exp(statistics.fmean(truths)) <= found.high
    assert 0.93 < covered / runs < 0.97


def facts_of(name: str, eager: float | None, compiled: float | None) -> WorkloadFacts:
    rows = (
        Baseline(name="eager", median_ms=eager, failed="" if eager else "too slow"),
        Baseline(name="compile", median_ms=compiled, failed="" if compiled else "no compiler"),
    )
    roofline = Roofline(
        bandwidth_gbps=10.0, peak_gflops=100.0, moved_bytes=1000, flops=4000, fault_us=0.1,
        measured="Measured.",
    )  # fmt: skip
    facts = ReferenceFacts(
        source="", digest="", graph=None, inputs=(), outputs=(), flops=4000, moved_bytes=1000
    )
    baselines = Baselines(rows=rows, noise=0.02)
    return WorkloadFacts(name=name, facts=facts, baselines=baselines, roofline=roofline)


def test_baselines_are_means_and_the_fastest_of_each_is_one_more() -> None:
    found = combined_baselines([facts_of("a", 1.0, 4.0), facts_of("b", 9.0, 4.0)])
    assert {row.name: row.median_ms for row in found.rows} == pytest.approx(
        {"eager": 3.0, "compile": 4.0, "fastest": 2.0}
    )
    assert found.best is not None
    assert found.best.name == "fastest"
    assert found.noise == pytest.approx(0.02)


def test_a_baseline_that_failed_on_one_workload_has_failed_and_says_where() -> None:
    found = combined_baselines([facts_of("a", 1.0, 4.0), facts_of("b", 9.0, None)])
    assert found.rows[1].failed == "on b: no compiler"
    assert found.best is not None
    assert found.best.name == "eager"


def test_a_mean_rooflines_bound_is_the_mean_of_the_bounds() -> None:
    small, large = facts_of("a", 1.0, 1.0), facts_of("b", 1.0, 1.0)
    grown = large.roofline.model_copy(update={"moved_bytes": 4000, "flops": 64000})
    roof = combined_roofline([small, large.model_copy(update={"roofline": grown})])
    floors = (small.roofline.memory_ms, grown.memory_ms)
    assert roof.memory_ms == pytest.approx(math.sqrt(math.prod(floors)))
    assert roof.compute_ms == pytest.approx(math.sqrt(small.roofline.compute_ms * grown.compute_ms))
