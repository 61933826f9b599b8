import random

import pytest

from tools.judge.blocks import (
    Arm,
    behind,
    compare_arms,
    deferred_ns,
    log_ratios_of,
    mismatch,
    noise_in,
    open_against,
    quiet,
)
from tools.judge.lane import Sample

MS = 1_000_000


def arm(name, calls_ms, *, copies_ms=0.1, claims=1.0, waited_ms=None, calls=1):
    waited_ms = waited_ms or [0.0] * len(calls_ms)
    samples = [
        Sample(calls, call * MS, copies_ms * MS, call * claims * MS, 0, int(waited * MS))
        for call, waited in zip(calls_ms, waited_ms, strict=True)
    ]
    return Arm(name, None, samples)


def noisy(mean_ms, blocks=20, seed=0):
    chance = random.Random(seed)
    return [mean_ms * chance.uniform(0.97, 1.03) for _ in range(2 * blocks)]


def test_a_speedup_lies_within_its_interval():
    row = compare_arms(arm("eager", noisy(6.0)), arm("candidate", noisy(2.0, seed=1)), 0.0)
    assert row.low <= row.speedup <= row.high
    assert row.speedup == pytest.approx(3.0, rel=0.02)
    assert row.blocks == 20


def test_a_drift_that_both_arms_share_does_not_show():
    drift = [1.0 + 0.05 * block for block in range(20) for _ in (0, 1)]
    one = arm("eager", [3.0 * factor for factor in drift])
    other = arm("candidate", [2.0 * factor for factor in drift])
    row = compare_arms(one, other, 0.0)
    assert row.low == pytest.approx(1.5, rel=1e-3)
    assert row.high == pytest.approx(1.5, rel=1e-3)


def test_the_handshake_is_taken_off_both():
    row = compare_arms(arm("eager", [1.1] * 16), arm("candidate", [0.6] * 16), 0.1 * MS)
    assert row.speedup == pytest.approx(2.0, rel=1e-3)


def test_what_a_request_costs_is_shared_by_the_calls_of_a_burst():
    eager, candidate = arm("eager", [0.03] * 40, calls=10), arm("candidate", [0.02] * 40, calls=10)
    row = compare_arms(eager, candidate, 0.1 * MS)
    assert row.speedup == pytest.approx(2.0)
    assert row.candidate_ms == pytest.approx(0.01)


def test_what_is_put_off_in_most_calls_alone_is_told_from_a_busy_machine():
    # An alarm that sometimes rings before the call is over: then the work is in it.
    caught, late = arm("", [8.0] * 14), arm("", [0.3] * 26, copies_ms=4.0)
    lazy = Arm("candidate", None, [*caught.samples, *late.samples])
    assert "left for after" in mismatch(lazy, arm("eager", noisy(8.0)), 0.0)
    # Where the machine delays a baseline's copies as often, nothing is said of the candidate.
    quick, slow = arm("", [8.0] * 14), arm("", [8.0] * 26, copies_ms=6.0)
    busy = Arm("eager", None, [*quick.samples, *slow.samples])
    honest = Arm("candidate", None, [*quick.samples, *slow.samples])
    assert mismatch(honest, busy, 0.0) == ""


def test_a_quick_kernel_cannot_put_off_what_would_be_nothing_for_a_slow_one():
    eager = arm("eager", noisy(0.02), copies_ms=0.001, calls=64)
    lazy = arm("candidate", [0.001] * 40, copies_ms=0.02, calls=64)
    assert "left for after" in mismatch(lazy, eager, 0.0)


def test_a_candidate_wholly_behind_another_is_let_go_and_one_that_may_catch_up_is_not():
    eager, slow = arm("eager", noisy(4.0)), arm("candidate", noisy(2.0, seed=1))
    assert behind([slow, eager], 2.5)
    assert not behind([slow, eager], 2.0)
    assert not behind([slow, eager], 1.0)


def test_a_candidate_is_behind_if_it_is_so_against_its_strongest_baseline():
    arms = [arm("candidate", noisy(2.0)), arm("eager", noisy(8.0)), arm("compile", noisy(3.0))]
    assert behind(arms, 2.0)


def test_work_left_for_the_copy_is_charged_and_convicts():
    eager = arm("eager", noisy(5.0))
    lazy = arm("candidate", [0.1] * 40, copies_ms=5.0)
    assert deferred_ns(lazy, eager) > 4.5 * MS
    assert "left for after" in mismatch(lazy, eager, 0.0)
    charged = compare_arms(eager, lazy, 0.0, deferred_ns(lazy, eager))
    assert charged.speedup < 1.1


def test_a_clock_that_lies_convicts_and_one_that_is_merely_late_now_and_then_does_not():
    eager = arm("eager", noisy(5.0))
    assert "clock" in mismatch(arm("candidate", noisy(5.0), claims=0.01), eager, 0.0)
    assert "clock" in mismatch(arm("candidate", noisy(5.0), claims=3.0), eager, 0.0)
    assert mismatch(arm("candidate", noisy(5.0)), eager, 0.0) == ""


def test_a_reply_as_late_as_the_baselines_are_is_no_lie():
    late = arm("eager", noisy(9.0), claims=0.5)
    assert mismatch(arm("candidate", noisy(9.0), claims=0.5), late, 0.0) == ""
    assert "clock" in mismatch(arm("candidate", noisy(9.0), claims=0.01), late, 0.0)


def test_a_candidate_that_is_less_late_than_the_baseline_does_not_lie() -> None:
    late = arm("eager", noisy(9.0), claims=0.5)
    assert mismatch(arm("candidate", noisy(9.0), claims=0.99), late, 0.0) == ""


def test_blocks_in_which_something_waited_are_left_out():
    waits = [5.0 if call < 10 else 0.0 for call in range(40)]
    calls = [8.0 if wait else 3.0 for wait in waits]
    eager = arm("eager", [3.0] * 40)
    trimmed, _ = quiet([arm("candidate", calls, waited_ms=waits), eager])
    assert len(trimmed.samples) == 30
    assert {sample.call_ns for sample in trimmed.samples} == {3 * MS}


def test_a_candidate_cannot_choose_its_blocks_by_making_itself_wait():
    waits = [5.0 if call < 24 else 0.0 for call in range(40)]
    calls = [8.0 if wait else 3.0 for wait in waits]
    eager = arm("eager", [3.0] * 40)
    trimmed, _ = quiet([arm("candidate", calls, waited_ms=waits), eager])
    assert len(trimmed.samples) == 40


def test_noise_is_how_far_the_same_code_strays_from_itself():
    eager = arm("eager", noisy(2.0))
    calm = noise_in(log_ratios_of(eager, arm("eager again", noisy(2.0, seed=1)), 0.0))
    wild = noise_in(log_ratios_of(eager, arm("eager again", noisy(2.2, seed=1)), 0.0))
    assert 0 < calm < 0.03
    assert wild > 0.08


def test_readings_of_noise_that_are_put_together_say_less_of_it():
    readings = [
        log_ratios_of(
            arm("eager", noisy(50.0, 8, seed)), arm("again", noisy(50.0, 8, 50 + seed)), 0.0
        )
        for seed in range(1, 6)
    ]
    each = [noise_in(ratios) for ratios in readings]
    assert noise_in([ratio for ratios in readings for ratio in ratios]) < sum(each) / len(each)


def test_a_measurement_is_open_only_while_its_interval_holds_the_bound():
    eager, candidate = arm("eager", noisy(2.1)), arm("candidate", noisy(2.0, seed=1))
    row = compare_arms(eager, candidate, 0.0)
    for bound, is_open in ((row.low - 0.05, False), (row.speedup, True), (row.high + 0.05, False)):
        assert open_against([candidate, eager], bound - 1.0) is is_open


def test_of_several_baselines_the_strongest_decides_if_it_is_open():
    candidate, slow = arm("candidate", noisy(2.0, seed=1)), arm("eager", noisy(9.0))
    assert open_against([candidate, slow, arm("compile", noisy(2.0, seed=1))], 0.0)
    assert not open_against([candidate, slow, arm("compile", noisy(4.0))], 0.0)
