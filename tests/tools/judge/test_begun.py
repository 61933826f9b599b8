"""The compiled baseline is set to work early, stands still while anything is timed, and is used."""

import time

import psutil
import pytest
import torch

from tools.judge.begun import Begun
from tools.judge.buffers import InputSets
from tools.judge.inductor import Furnishing
from tools.judge.lane import Lane, Program
from tools.judge.runners import RunnerFailed
from tools.judge.session import INDUCTOR, open_session
from tools.judge.wire import JudgeLimits
from tools.judge.zygote import Zygote
from tools.runner.jail import strongest_jail
from tools.task import InputSpec, Task

LIMITS = JudgeLimits(preparation_s=1, timing_s=0.1)
MEMORY = 4 << 30
SLEEPY = """
import time, torch
class Model(torch.nn.Module):
    def forward(self, x):
        {body}
        return x
"""


class Watched(Zygote):
    """A zygote that remembers the environments of its runners."""

    forks: tuple[dict[str, str], ...] = ()

    def fork(self, memory, environment, readable=()):
        self.forks += (environment,)
        return super().fork(memory, environment, readable)

    @property
    def compiling(self):
        return [environment for environment in self.forks if INDUCTOR in environment]


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    zygote = Watched(strongest_jail(), tmp_path_factory.mktemp("jail"))
    yield zygote
    zygote.close()


@pytest.fixture
def begin(zygote):
    """A lane that was set to work on a program whose forward does this first."""
    lanes = []

    def of(body):
        lane = Lane(zygote.fork(MEMORY, {}), LIMITS, 0.001)
        lanes.append(lane)
        sets = InputSets([(torch.ones(4),)], private=False)
        program = Program(SLEEPY.format(body=body), "Model")
        lane.begin(program, ((), {}), 1, sets)
        sets.close()
        return lane

    yield of
    for lane in lanes:
        lane.close()


def stopped(lane):
    """Whether its process stands still, given a moment to obey."""
    process, told = psutil.Process(lane.runner.pid), []
    while len(told) < 20 and told[-3:] != [psutil.STATUS_STOPPED] * 3:
        told.append(process.status())
        time.sleep(0.01)
    return told[-1] == psutil.STATUS_STOPPED


def test_a_lane_at_work_stands_still_while_something_is_measured_alone(begin):
    begun = Begun()
    begun.watch(lane := begin("time.sleep(30)"))
    with begun.alone():
        assert stopped(lane)
    assert not stopped(lane)
    with begun.alone() as release:
        release()
        assert not stopped(lane)


def test_what_was_held_before_is_not_let_go_by_a_measurement_within(begin):
    begun = Begun()
    begun.watch(lane := begin("time.sleep(30)"))
    with begun.alone():
        with begun.alone() as release:
            release()
            assert stopped(lane)
        assert stopped(lane)
    assert not stopped(lane)


def test_whoever_asks_a_lane_that_was_held_waits_for_its_work(begin):
    begun = Begun()
    begun.watch(lane := begin("time.sleep(0.2)"))
    begun.hold()
    assert lane.runner.busy
    lane.expect([torch.empty(4)])
    assert not lane.runner.busy


def test_what_a_lane_at_work_raises_is_told_to_who_asks_next(begin):
    lane = begin("raise OSError('no such luck')")
    with pytest.raises(RunnerFailed, match="no such luck"):
        lane.expect([torch.empty(4)])


def test_the_baseline_that_is_measured_is_the_one_that_was_begun(zygote, tmp_path):
    task = Task(name="relu", op="torch.relu", inputs=(InputSpec(shape=(8, 8)),))
    furnishing = Furnishing(zygote.jail)
    furnishing.start()
    assert furnishing.folder()
    session = open_session(task, tmp_path, LIMITS, zygote)
    try:
        assert session.facts
        assert len(zygote.compiling) == 1
        baselines, _ = session.survey()
        assert len(zygote.compiling) == 1
        assert {row.name for row in baselines.rows if row.median_ms} == {"eager", "compile"}
    finally:
        session.close()
