import pytest

from tools.judge.rotation import (
    bytes_that_must_move,
    flush_bytes,
    lingering,
    plan_rotation,
    span_mismatch,
)

MIB, GIB, MS = 1 << 20, 1 << 30, 1e6


def test_twice_the_cache_is_written_over_and_never_less_than_small_caches_need():
    assert flush_bytes(50 * MIB) == 100 * MIB
    assert flush_bytes(0) == flush_bytes(4 * MIB) == 64 * MIB


@pytest.mark.parametrize("size", [1, 64 * MIB, GIB, 40 * GIB])
@pytest.mark.parametrize("call_s", [0.0, 2e-5, 0.3])
def test_a_burst_has_a_set_for_each_call_and_fits_into_its_share(size, call_s):
    plan = plan_rotation(size, size, call_s, 80 * GIB)
    assert 1 <= plan.burst <= plan.sets
    assert plan.sets >= 2
    assert plan.burst == 1 or plan.burst * 2 * size <= 80 * GIB / 48


def test_a_quick_op_is_timed_over_many_calls_and_a_slow_one_by_itself():
    assert plan_rotation(4096, 4096, 2e-5, 80 * GIB).burst == 128
    assert plan_rotation(4096, 4096, 0.02, 80 * GIB).burst == 1


def test_what_the_cache_may_hold_does_not_count_as_moved():
    assert bytes_that_must_move(400 * MIB, 50 * MIB) == 300 * MIB
    assert bytes_that_must_move(64 * MIB, 50 * MIB) == 0.0


def test_work_that_goes_on_after_its_calls_is_told_of():
    assert "4.00 ms" in lingering([4.1 * MS] * 20, [0.1 * MS] * 20)


def test_a_busy_machine_is_not_taken_for_work_that_goes_on():
    assert lingering([0.1 * MS] * 16 + [9 * MS] * 4, [0.1 * MS] * 20) == ""
    assert lingering([], []) == ""


def test_events_that_tell_of_less_than_the_wall_saw_are_in_order_and_of_more_are_not():
    assert span_mismatch(1 * MS, 3 * MS, 0.3 * MS) == ""
    assert "9.00 ms" in span_mismatch(9 * MS, 3 * MS, 0.3 * MS)
