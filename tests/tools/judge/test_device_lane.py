"""The device's way of judging, put to the proof without one: a site whose device is the CPU.

Everything here is what runs on a GPU, but for the memory that lies there and the waiting for it: a
stopped runner, a flush before each sample, results copied at once and again, bursts copied out when
the clock has stopped.
"""

import contextlib
import gc
import weakref
from pathlib import Path

import pytest

from tools.candidate import Candidate
from tools.judge.blocks import Arm, device_mismatch, device_ms
from tools.judge.device_lane import DeviceLane, Waiting
from tools.judge.exam import Exam
from tools.judge.gauntlet import verdict_of
from tools.judge.lane import Sample
from tools.judge.rotation import plan_rotation
from tools.judge.runners import RunnerFailed
from tools.judge.session import Session
from tools.judge.site import Host
from tools.judge.wire import JudgeLimits
from tools.judge.zygote import Zygote
from tools.runner.jail import strongest_jail
from tools.task import parse_task
from tools.verdict import Correct, DeviceReading, WrongOutput

REFERENCES = Path(__file__).parents[2] / "references"
LIMITS = JudgeLimits(
    call_s=5, first_call_s=10, load_s=30, compile_s=120, preparation_s=2, timing_s=0.3
)
CPU_AS_DEVICE = 8 << 30
MS = 1_000_000
HONEST = """import torch
class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)
"""
# As a side stream would: the answer comes later than the call's return, and is there in the end.
LATE = """import threading, time
import torch
class ModelNew(torch.nn.Module):
    def forward(self, x):
        made = torch.empty_like(x)
        def work():
            time.sleep(0.01)
            made.copy_(torch.softmax(x, dim=-1))
        threading.Thread(target=work).start()
        return made
"""
SWAPPED = """import torch
class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.last = None
    def forward(self, x):
        made = torch.softmax(x, dim=-1)
        made, self.last = (made, made) if self.last is None else (self.last, made)
        return made if made.shape == x.shape else self.last
"""
FOREIGN = """import torch
class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.empty(x.shape, device="meta")
"""


class StandIn(Waiting, Host):
    """Counts what it is asked for."""

    brittle = True

    def __init__(self):
        self.flushes = self.turns = self.readings = 0

    def lane(self, runner, limits, reference_s):
        return DeviceLane(runner, limits, reference_s, self, "strict")

    def synchronise(self):
        pass

    def flush(self):
        self.flushes += 1

    def rotation(self, input_bytes, output_bytes, call_s):
        return plan_rotation(input_bytes, output_bytes, call_s, CPU_AS_DEVICE)

    def reading(self):
        self.readings += 1
        return DeviceReading(sm_mhz=1980, memory_mhz=3201, celsius=40, watts=300)

    @contextlib.contextmanager
    def turn(self):
        self.turns += 1
        yield


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    (folder / "jail").mkdir()
    zygote = Zygote(strongest_jail(), folder / "jail")
    task = parse_task({"name": "softmax", "reference": "softmax.py"}, "t.yaml", REFERENCES)
    opened = Session(task, folder, LIMITS, zygote, StandIn())
    yield opened
    opened.close()
    zygote.close()


def verified(session, source):
    return session.verify(Candidate(source=source, backend="torch"))


def test_an_honest_kernel_is_correct_and_timed_over_bursts_with_a_flush_each(session):
    assert isinstance(verified(session, HONEST), Correct)
    before = session.site.flushes
    verdict = session.measure(Candidate(source=HONEST, backend="torch"), ("eager",))
    assert isinstance(verdict, Correct), verdict
    assert session.ground.pool.burst > 1
    assert session.site.flushes > before
    assert verdict.timing.checked_outputs > 1
    assert [reading.sm_mhz for reading in verdict.timing.readings] == [1980, 1980]
    assert verdict.timing.device_ms is None
    assert session.site.turns > 0


def test_a_result_that_is_not_there_when_the_same_stream_reads_it_is_wrong(session, monkeypatch):
    # Its thread may have to wait for a processor.
    monkeypatch.setattr("tools.judge.gauntlet.LATE_SECONDS", 1.0)
    verdict = verified(session, LATE)
    assert isinstance(verdict, WrongOutput)
    assert "same stream" in verdict.detail


def test_an_answer_to_the_call_before_is_found_among_the_timed_ones(session):
    assert verified(session, SWAPPED).kind in ("wrong_output", "cheated")


def test_a_result_on_another_device_breaks_the_contract(session):
    verdict = verified(session, FOREIGN)
    assert verdict.kind == "contract_broken"
    assert "on meta instead of cpu" in verdict.detail


def test_a_kernel_whose_timed_outputs_are_wrong_is_found_by_the_ones_that_are_checked(session):
    lazy = HONEST.replace(
        "        return torch",
        "        self.n = getattr(self, 'n', 0) + 1\n"
        "        if self.n > 100:\n            return torch.zeros_like(x)\n        return torch",
    )
    verdict = session.measure(Candidate(source=lazy, backend="torch"), ("eager",))
    assert verdict.kind == "cheated"


def test_no_set_is_used_twice_in_a_burst(session):
    pool = session.ground.pool
    assert len(pool.sets.bundles) >= pool.burst
    assert pool.copy_ns == 0.0
    drawn = pool.sets.bundles[: pool.burst]
    assert len({bundle.tensors[0].data_ptr() for bundle in drawn}) == pool.burst


def test_a_runner_that_cannot_use_the_device_is_no_fault_of_the_kernel():
    assert verdict_of(RunnerFailed("device", "no CUDA")).kind == "judge_error"
    assert verdict_of(RunnerFailed("forward", "CUDA out of memory")).kind == "crashed"


def arm(call_ms, device_ms, after_ms):
    sample = Sample(1, call_ms * MS, 0, call_ms * MS, 0, 0, device_ms * MS, after_ms * MS)
    return Arm("candidate", None, [sample] * 16)


def test_events_that_saw_more_time_than_passed_are_told_of():
    assert "CUDA's events" in device_mismatch(arm(2.0, 5.0, 0.1), arm(2.0, 2.0, 0.1))


def test_work_that_goes_on_when_its_call_is_over_is_told_of():
    assert "at work" in device_mismatch(arm(2.0, 1.9, 6.0), arm(2.0, 1.9, 0.1))


def test_two_clocks_that_agree_say_nothing():
    assert device_mismatch(arm(2.0, 1.9, 0.1), arm(4.0, 3.8, 0.1)) == ""
    assert device_ms(arm(2.0, 1.9, 0.1)) == pytest.approx(1.9)


def test_an_earlier_exam_is_gone_before_a_confirmations_is_written(session, monkeypatch):
    assert isinstance(verified(session, HONEST), Correct)
    assert isinstance(session.measure(Candidate(source=HONEST, backend="torch"), ()), Correct)
    earlier, write, seen = weakref.ref(session.exam), Exam._write, []

    def noted(exam, *given):
        gc.collect()
        seen.append(earlier())
        write(exam, *given)

    monkeypatch.setattr(Exam, "_write", noted)
    confirmed = session.confirm(Candidate(source=HONEST, backend="torch"))
    assert isinstance(confirmed, Correct), confirmed
    assert confirmed.timing.confirmed
    assert seen == [None]
