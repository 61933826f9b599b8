"""A baseline that dies is a failure of the judge's own: it is told as one, and had again."""

import os
import signal

import pytest

from tools.judge.baselines import AGAIN, BaselineFailed
from tools.judge.clock import Clock
from tools.judge.session import Session
from tools.judge.wire import JudgeLimits
from tools.judge.zygote import Zygote
from tools.runner.jail import strongest_jail
from tools.task import InputSpec, Task

LIMITS = JudgeLimits(preparation_s=1, timing_s=0.1)


@pytest.fixture
def session(tmp_path):
    (tmp_path / "jail").mkdir()
    zygote = Zygote(strongest_jail(), tmp_path / "jail")
    task = Task(name="relu", op="torch.relu", inputs=(InputSpec(shape=(8, 8)),), target="cpu")
    opened = Session(task, tmp_path, LIMITS, zygote)
    yield opened
    opened.close()
    zygote.close()


def test_eager_that_dies_beside_itself_has_failed_and_the_noise_is_read_once_more(
    session, monkeypatch
):
    def killing(clock, arms, seconds):
        (again,) = [arm.lane for arm in arms if arm.name == AGAIN]
        os.kill(again.runner.pid, signal.SIGKILL)
        again.call([0])

    with monkeypatch.context() as patched:
        patched.setattr(Clock, "run", killing)
        with pytest.raises(BaselineFailed, match="stopped working"):
            _ = session.ground.noise
    assert session.ground.noise >= 0
