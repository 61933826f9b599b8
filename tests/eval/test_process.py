"""Limits and ends of a problem's process, with real ones."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from eval.process import Limits, execute

MIB = 1 << 20


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def assert_gone(pid: int) -> None:
    if psutil.pid_exists(pid):
        _, alive = psutil.wait_procs([psutil.Process(pid)], timeout=60)
        assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def test_a_finished_process_hands_over_its_output_code_and_log(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    how = execute(python(code), 60.0, tmp_path / "log")
    assert (how.code, how.output.strip(), how.log.strip(), how.stopped) == (3, "out", "err", "")


def test_a_process_that_hangs_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, file=sys.stderr, flush=True)\n"
        "time.sleep(600)\n"
    )
    how = execute(python(code), 10.0, tmp_path / "log")
    assert (how.code, how.stopped) == (None, "timed_out")
    assert_gone(int(how.log))


def test_what_a_killed_process_leaves_in_another_session_is_ended(tmp_path: Path) -> None:
    code = (
        "import os, signal, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],\n"
        "                         start_new_session=True)\n"
        "print(child.pid, file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    how = execute(python(code), 60.0, tmp_path / "log")
    assert (how.code, how.stopped) == (-9, "")
    assert_gone(int(how.log))


def test_one_that_takes_all_memory_is_stopped_before_the_machine_suffers(tmp_path: Path) -> None:
    code = "import time\nheld = []\nwhile True:\n    held.append(bytearray(32 << 20))\n"
    code += "    time.sleep(0.02)\n    assert len(held) < 100\n"
    how = execute(python(code), 60.0, tmp_path / "log", Limits(memory_bytes=400 * MIB))
    assert (how.code, how.stopped) == (None, "out_of_memory")


HOLD = "held = bytearray({mib} << 20)\ntime.sleep({seconds})\n"


@pytest.fixture
def neighbour() -> Iterator[Callable[[str], None]]:
    """Starts a process beside the problem's, which is none of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> None:
        started.append(subprocess.Popen(python(f"import time\n{code}"), stdout=subprocess.PIPE))

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_what_a_neighbour_takes_is_not_the_problems(
    tmp_path: Path, neighbour: Callable[[str], None]
) -> None:
    neighbour("time.sleep(1)\n" + HOLD.format(mib=600, seconds=60))
    code = "import time\n" + HOLD.format(mib=250, seconds=4)
    how = execute(python(code), 60.0, tmp_path / "log", Limits(memory_bytes=400 * MIB))
    assert (how.code, how.stopped) == (0, "")


def test_what_a_neighbour_gives_back_hides_nothing(
    tmp_path: Path, neighbour: Callable[[str], None]
) -> None:
    neighbour(HOLD.format(mib=900, seconds=2))
    time.sleep(1)
    code = "import time\ntime.sleep(2)\n" + HOLD.format(mib=600, seconds=20)
    how = execute(python(code), 60.0, tmp_path / "log", Limits(memory_bytes=400 * MIB))
    assert (how.code, how.stopped) == (None, "out_of_memory")


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    code = (
        "import mmap, os, time\n"
        "shared = mmap.mmap(-1, 200 << 20)\n"
        "shared.write(bytes(len(shared)))\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        sum(shared[at] for at in range(0, len(shared), 4096))\n"
        "        time.sleep(4)\n"
        "        os._exit(0)\n"
        "time.sleep(4)\n"
    )
    how = execute(python(code), 60.0, tmp_path / "log", Limits(memory_bytes=500 * MIB))
    assert (how.code, how.stopped) == (0, "")


def test_one_that_prints_without_end_is_stopped_and_its_last_words_are_few(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    code = "import os, time\nwhile True:\n    os.write(1, b'x' * (1 << 20)); time.sleep(0.01)\n"
    began = time.monotonic()
    limits = Limits(disk_bytes=64 * MIB)
    how = execute(python(code), 60.0, tmp_path / "own" / "log", limits)
    assert (how.code, how.stopped) == (None, "flooded")
    assert len(how.output) <= MIB
    assert time.monotonic() - began < 60
    assert sum(file.stat().st_size for file in (tmp_path / "own").iterdir()) <= 2 * MIB


def test_an_interruption_ends_the_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("eval.process._Watch.complaint", interrupted)
    code = "import os, sys, time; print(os.getpid(), file=sys.stderr, flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        execute(python(code), 60.0, tmp_path / "log")
    assert_gone(int((tmp_path / "log").read_text() or 0) or 1 << 30)
