"""A terminal that is closed ends a process in order, though nobody reads what it says."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graph.endings import endings, leave

# With a terminal of its own, as a command that a person started.
COMMAND = """
import fcntl, pathlib, sys, termios, time
from eval.surroundings import endings_interrupt

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
with endings_interrupt():
    try:
        pathlib.Path("ready").touch()
        time.sleep(60)
    except KeyboardInterrupt:
        print("seen by nobody", flush=True)
        print("nor this", file=sys.stderr, flush=True)
        pathlib.Path("report").touch()
        sys.exit(130)
"""


@pytest.fixture(autouse=True)
def _hangups_count() -> Iterator[None]:
    """Also where these tests are run under `nohup`."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, earlier)


def test_what_is_said_to_a_closed_terminal_keeps_no_report_from_being_written(
    tmp_path: Path,
) -> None:
    ours, theirs = pty.openpty()
    project = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project)}, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.close(ours)
        assert process.wait(60) == 130
    assert (tmp_path / "report").exists()


def test_nohup_is_heeded() -> None:
    assert signal.SIGHUP in endings()
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert endings() == (signal.SIGINT, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, earlier)


def test_a_terminal_that_is_there_is_not_left() -> None:
    ours, theirs = pty.openpty()
    leave([theirs])
    assert os.isatty(theirs)
    assert signal.SIGHUP in endings()
    for one in (ours, theirs):
        os.close(one)
