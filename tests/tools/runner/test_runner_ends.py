"""What a candidate leaves is gone when its runner is closed, and stands still when stopped."""

import contextlib
import gc
import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from tools.judge.reserve import UserIds
from tools.judge.runners import RUNNER_FAILURES, ZygoteGone
from tools.judge.zygote import Zygote
from tools.runner.jail import jail_named

NAME = f"left-{os.getpid()}"
SPINNERS = f"""
def spin():
    libc.prctl(15, b'{NAME}')
    while True:
        pass
if os.fork() == 0:
    spin()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        spin()
    os._exit(0)
os.wait()
threading = __import__('threading')
threading.Thread(target=lambda: os.fork() or spin()).start()
say('spinning')
"""
LOCKED = """
os.makedirs('a/b/c')
open('a/b/c/d', 'w')
for path in ('a/b', 'a', '.'):
    os.chmod(path, 0)
"""
FULL = """
for name in '123':
    tried(lambda: open(name, 'wb').write(bytes(200 << 20)))
"""
LEAVINGS = {
    "returns": "say('here')",
    "exits": "os._exit(3)",
    "crashes": "ctypes.string_at(0)",
    "raises": "raise SystemError('x')",
    "hangs": "time.sleep(1000)",
    "hangs deaf": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(1000)",
    "stops itself": "os.kill(os.getpid(), signal.SIGSTOP); signal.pause()",
    "closes its channel": "os.closerange(3, 1000); time.sleep(1000)",
    "closes and spins": "os.closerange(0, 1000)\nwhile True: pass",
    "leaves daemons": SPINNERS,
    "says that it ended": SPINNERS
    + "[tried(lambda: os.write(fd, b'{\"ended\": 1}')) for fd in range(3, 9)]",
    "locks its folder": LOCKED,
    "digs deep": "for _ in range(3000): os.mkdir('d'); os.chdir('d')",
    "links out": "os.symlink('/etc', 'etc'); os.symlink('/', 'root'); os.mkfifo('fifo')",
    "fills its folder": FULL,
}


def named_processes() -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["name"]) if p.info["name"] == NAME]


def spinning_processes(expected: int = 3) -> list[psutil.Process]:
    """Those of SPINNERS, once each has had the time to take its name."""
    deadline = time.monotonic() + 20
    while len(processes := named_processes()) < expected and time.monotonic() < deadline:
        pass
    return processes


def belongings() -> tuple[set[str], set[int], int]:
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    mounts = set(Path("/proc/self/mounts").read_text().splitlines())
    return mounts, {p.pid for p in psutil.Process().children(recursive=True)}, descriptors


def processor_time(process: psutil.Process) -> float:
    return time.clock_gettime((~process.pid << 3) | 2)


def work(seconds: float) -> None:
    began = time.process_time()
    while time.process_time() < began + seconds:
        pass


@pytest.mark.parametrize("leaving", LEAVINGS)
def test_nothing_of_a_runner_is_left_after_close(cell, leaving):
    cell.fork().close()
    gc.collect()
    before = belongings()
    runner = cell.fork()
    folder = runner.folder
    with contextlib.suppress(*RUNNER_FAILURES):
        cell.load(runner, LEAVINGS[leaving], 1.5)
    expected = 3 if SPINNERS in LEAVINGS[leaving] else 0
    left_running = len(spinning_processes(expected))
    runner.close()
    assert left_running == expected
    assert runner.ended
    assert not folder.exists()
    assert not list(cell.zygote.folder.glob("runner-*"))
    assert not named_processes()
    mounts, processes, descriptors = belongings()
    assert mounts == before[0]
    # The monitor has said its last word, and may need a moment to be gone.
    deadline = time.monotonic() + 60
    while processes - before[1] and time.monotonic() < deadline:
        processes = belongings()[1]
    assert not processes - before[1]
    assert descriptors == before[2]


def test_children_stand_still_while_their_runner_is_stopped(cell):
    with cell.runner() as runner:
        assert cell.load(runner, SPINNERS) == "spinning"
        spinning = spinning_processes()
        assert len(spinning) == 3
        runner.freeze()
        # A processor that runs one is told to stop it, and that takes a moment.
        work(0.02)
        before = [processor_time(process) for process in spinning]
        work(0.1)
        assert [processor_time(process) for process in spinning] == before
        runner.thaw()
        deadline = time.monotonic() + 20
        for process, value in zip(spinning, before, strict=True):
            while processor_time(process) <= value:
                assert time.monotonic() < deadline


def test_a_zygote_killed_in_the_middle_is_replaced_and_its_runners_are_gone(cell, tmp_path):
    jail = jail_named(cell.kind)
    zygote = Zygote(jail, tmp_path, ahead=False)
    try:
        runner = zygote.fork(1 << 30, {})
        cell.load(runner, SPINNERS)
        killed = psutil.Process(runner.pid).parent().parent()
        assert "tools.runner.zygote" in killed.cmdline()
        killed.kill()
        deadline = time.monotonic() + 20
        while not runner.ended:
            assert time.monotonic() < deadline
        try:
            other = zygote.fork(1 << 30, {})
        except ZygoteGone:
            other = zygote.fork(1 << 30, {})
        assert cell.load(other, "say('works')") == "works"
        runner.close()
        other.close()
        assert not named_processes()
        assert not list(tmp_path.glob("runner-*"))
    finally:
        zygote.close()


def test_a_judge_that_is_killed_takes_all_runners_with_it(cell, tmp_path):
    script = f"""
import sys, time
from pathlib import Path
from tests.tools.runner.conftest import Cell
from tools.judge.zygote import Zygote
from tools.runner.jail import jail_named
cell = Cell({cell.kind!r}, Zygote(jail_named({cell.kind!r}), Path({str(tmp_path)!r}), ahead=False))
runner = cell.fork()
cell.load(runner, {SPINNERS!r})
print("ready", flush=True)
time.sleep(1000)
"""
    judge = psutil.Popen([sys.executable, "-c", script], stdout=-1, cwd=Path(__file__).parents[3])
    try:
        assert judge.stdout.readline() == b"ready\n"
        assert len(spinning_processes()) == 3
    finally:
        judge.kill()
        judge.communicate()
    deadline = time.monotonic() + 60
    while named_processes():
        assert time.monotonic() < deadline


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends user ids")
def test_a_user_id_is_lent_to_one_runner_at_a_time():
    one, other = UserIds(), UserIds()
    first, held = one.lend()
    second, also_held = other.lend()
    assert first != second
    held.close()
    third, held = UserIds().lend()
    assert third == first
    held.close()
    also_held.close()


def test_a_runner_asked_for_beforehand_is_taken_only_for_what_it_was_asked_for(cell, tmp_path):
    zygote = Zygote(jail_named(cell.kind), tmp_path)
    try:
        zygote.fork(1 << 30, {}).close()
        zygote.settle()
        assert len(list(tmp_path.glob("runner-*"))) == 1
        other = zygote.fork(1 << 30, {"WANTED": "this"})
        assert cell.load(other, "say(os.environ.get('WANTED'))") == "this"
        other.close()
    finally:
        zygote.close()
    assert not list(tmp_path.glob("runner-*"))
