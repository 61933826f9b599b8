"""What changes in the middle of a burst convicts only who had read it before its turn."""

import random
from types import SimpleNamespace

import pytest
import torch

from tools.judge.buffers import Buffers
from tools.judge.trap import BEFORE, LEAST_CALLS, LEAST_SECONDS, Trap, can_be_set

CALLS = 40


class Bench:
    """A burst on numbered sets: `act` is what the runner has done when a set is touched."""

    def __init__(self):
        self.buffers = Buffers([torch.empty(6), torch.empty(3, dtype=torch.int32)], CALLS)
        self.chosen = random.sample(range(100, 100 + CALLS), CALLS)
        self.touched = []

    def trap(self, seed):
        pool = SimpleNamespace(touch=self.touched.append)
        return Trap(pool, self.buffers, self.chosen, 0.0, random.Random(seed))

    def answer(self, calls):
        for call in calls:
            for output in self.buffers.of(call):
                output.fill_(call + 1)


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.buffers.close()


@pytest.mark.parametrize("seed", range(40))
def test_a_set_is_ahead_while_the_result_before_the_last_is_missing(bench, seed):
    bench.buffers.poison(0)
    done = 25
    bench.answer(range(done))
    trap = bench.trap(seed)
    trap.spring()
    bench.answer(range(done, CALLS))
    assert bench.touched == [bench.chosen[trap.touched]]
    assert trap.sprung == (trap.touched - BEFORE >= done)


def test_some_of_all_sets_are_touched(bench):
    places = set()
    for seed in range(300):
        trap = bench.trap(seed)
        trap.spring()
        places.add(trap.touched)
    assert min(places) < BEFORE
    assert max(places) == CALLS - 1
    assert len(places) > 0.9 * CALLS


def test_what_only_looks_like_a_result_is_none(bench):
    bench.buffers.poison(0)
    bench.answer(range(CALLS))
    sprung = []
    for seed in range(20):
        for output in bench.buffers.bundle.tensors:
            output.fill_(77)
        trap = bench.trap(seed)
        trap.spring()
        bench.answer(range(CALLS))
        sprung.append(trap.sprung == (trap.touched >= BEFORE))
    assert all(sprung)


def pool(**changes):
    given = {"burst": 64, "copy_ns": 900.0, "redraw": None, "sets": SimpleNamespace(private=False)}
    return SimpleNamespace(**given | changes)


def test_where_nothing_can_be_changed_ahead_there_is_no_trap():
    assert can_be_set(pool(), 0.002)
    assert not can_be_set(pool(), LEAST_SECONDS / 2)
    assert not can_be_set(pool(burst=LEAST_CALLS - 1), 0.002)
    # On a device results are copied at the end; private copies need not show a change.
    assert not can_be_set(pool(copy_ns=0.0), 0.002)
    assert not can_be_set(pool(sets=SimpleNamespace(private=True)), 0.002)
    assert not can_be_set(pool(redraw=lambda: ()), 0.002)
