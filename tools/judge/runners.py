"""The judge's hold on the processes it does not trust: one object a runner.

A runner that dies, hangs, raises or forges a reply becomes one exception each, which `gauntlet` and
`clock` turn into verdicts. No torch in here.
"""

import contextlib
import itertools
import os
import secrets
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.judge.processes import Descendants, OwnNamespace, is_stopped, processor_ns, signal_all
from tools.runner.channel import (
    Channel,
    ChannelClosed,
    ChannelGarbled,
    ChannelTimeout,
)

LAST_WORDS_SECONDS, ZYGOTE_WORDS_SECONDS = 1.0, 0.3
# The kernel frees a large process's memory before it is gone.
END_SECONDS = 10.0
LOG_LIMIT = 4000
MINOR_FAULTS_FIELD = 7
# How long its threads have to come to a stop, and how often that is looked at.
SETTLING_SECONDS, SETTLING_STEP_S = 5.0, 0.00005
# What has run for longer after that was woken.
STOPPED_NS = 200_000
# Root may ask for it, others may not. Kernels and baselines get the same, and only while timed.
FAVOURED = -10


class ZygoteGone(Exception):
    """The zygote died: the judge's own machinery failed, not a candidate."""


class RunnerDied(Exception):
    """The process ended within a request; the message says how, with the end of its log."""


class RunnerLate(Exception):
    """No reply within the deadline."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        super().__init__(f"no reply in {deadline_s:g} s")


class RunnerFailed(Exception):
    """The candidate raised; `stage` is import, construct or forward, the message its traceback."""

    def __init__(self, stage: str, log: str) -> None:
        self.stage = stage
        super().__init__(log)


class RunnerForged(Exception):
    """It did what no honest runner does: answer what nobody asked, or work while it was stopped."""


RUNNER_FAILURES = (RunnerDied, RunnerLate, RunnerFailed, RunnerForged)


@dataclass(frozen=True)
class Start:
    """A runner as it has started, before any untrusted code was in it.

    Args:
        pid: the kernel's word for it.
        in_force: what it is confined by.
        table: its process namespace's /proc, where it has one.
        readable: whether the judge may read its memory.
    """

    pid: int
    in_force: list[str]
    table: int | None
    readable: bool


@dataclass
class Holdings:
    """What a runner has of the machine besides its process, to be given back when it ends.

    Args:
        folder: its own, not yet made.
        log: what it prints; a memory file.
        user: holds its user id, where it has one.
    """

    folder: Path
    log: int
    user: socket.socket | None

    def release(self) -> None:
        """Give all of it back; twice is fine."""
        if self.log >= 0:
            os.close(self.log)
            self.log = -1
        if self.user is not None:
            self.user.close()
            self.user = None
        _remove(self.folder)


class Runner:
    """One runner, seen from the judge.

    `pid` is the kernel's word for it, so that faults, processor time and results can be read, and
    the process ended.
    """

    def __init__(
        self, channel: Channel, start: Start, holdings: Holdings, zygote: subprocess.Popen[bytes]
    ) -> None:
        self.channel = channel
        self.pid = start.pid
        self.folder = holdings.folder
        self.readable = start.readable
        self.in_force = start.in_force
        self.first_call_done = False
        # A baseline is the task's own reference, which runs in the judge's process as well.
        self.trusted = False
        self._holdings = holdings
        self._zygote = zygote
        self._bury: Callable[[Callable[[], None]], object] = _at_once
        table = start.table
        self._processes = Descendants(self.pid) if table is None else OwnNamespace(table)
        self._pidfd = os.pidfd_open(self.pid)
        self._frozen = False
        self._at_rest: dict[int, int] = {}
        self._closed = False
        self._owed: list[tuple[str, float]] = []
        channel.watch(self._pidfd)

    def ask(
        self, message: dict[str, Any], timeout_s: float, descriptors: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        """Send a request and wait for its reply.

        Raises:
            RunnerDied, RunnerLate, RunnerFailed, RunnerForged: see their classes.
            ZygoteGone: it died because the zygote did.
        """
        return self.ask_timed(message, timeout_s, descriptors)[0]

    def ask_timed(
        self,
        message: dict[str, Any],
        timeout_s: float,
        descriptors: tuple[int, ...] = (),
        then_stop: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> tuple[dict[str, Any], int]:
        """As `ask`, with the judge's own clock around it, in nanoseconds.

        `meanwhile` is called before the reply is waited for.
        With `then_stop` the process has been told to stop when the clock is read; so have its
        children, if it had any when it was stopped last. `freeze` waits until it has.
        """
        self.thaw()
        while self._owed:
            self._receive(*self._owed.pop(0))
        nonce = secrets.token_hex(8)
        began = time.perf_counter_ns()
        self._send({**message, "nonce": nonce}, descriptors)
        if meanwhile is not None:
            meanwhile()
        reply, ended = self._receive(nonce, timeout_s)
        if then_stop:
            self._signal(signal.SIGSTOP)
            if len(self._at_rest) > 1:
                signal_all(self._processes, signal.SIGSTOP)
            ended = time.perf_counter_ns()
        return reply, ended - began

    def post(
        self, message: dict[str, Any], timeout_s: float, descriptors: tuple[int, ...] = ()
    ) -> None:
        """Send a request and don't wait: the next `ask` does, and raises what has gone wrong.

        Raises:
            RunnerDied: nobody is there to read it.
        """
        self.thaw()
        nonce = secrets.token_hex(8)
        self._send({**message, "nonce": nonce}, descriptors)
        self._owed.append((nonce, timeout_s))

    @property
    def busy(self) -> bool:
        """Whether it has been sent a request that nobody has waited for yet."""
        return bool(self._owed) and not self._closed

    def _send(self, message: dict[str, Any], descriptors: tuple[int, ...]) -> None:
        try:
            self.channel.send(message, descriptors)
        except ChannelClosed:
            raise RunnerDied(self._last_words()) from None

    def _receive(self, nonce: str, timeout_s: float) -> tuple[dict[str, Any], int]:
        """The reply to a request, and when it came by the judge's clock."""
        try:
            reply = self.channel.receive(timeout_s)
            arrived = time.perf_counter_ns()
        except ChannelTimeout:
            raise RunnerLate(timeout_s) from None
        except ChannelClosed:
            raise RunnerDied(self._last_words()) from None
        except ChannelGarbled as error:
            raise RunnerForged(str(error)) from None
        if "ended" in reply:
            raise RunnerDied(self._epitaph(_text(reply["ended"])))
        if reply.get("nonce") != nonce:
            raise RunnerForged("a reply came that answers no question of the judge's")
        if "failed" in reply:
            raise RunnerFailed(_text(reply["failed"]), _text(reply.get("log", ""))[-LOG_LIMIT:])
        return reply, arrived

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._closed or bool(select.select([self._pidfd], [], [], 0)[0])

    def freeze(self) -> None:
        """Stop the process with its spinning threads and its children, until the next request."""
        if not self._frozen:
            self._signal(signal.SIGSTOP)
            signal_all(self._processes, signal.SIGSTOP)
            self._frozen = True
            self._at_rest = self._settled()

    def thaw(self) -> None:
        """Let it run again.

        Raises:
            RunnerForged: it ran meanwhile. A timer of its own may send what wakes it.
        """
        if self._frozen:
            ran_ns = _grown(self._at_rest, self._clocks_ns())
            signal_all(self._processes, signal.SIGCONT)
            self._signal(signal.SIGCONT)
            self._frozen = False
            if ran_ns > STOPPED_NS and not self.trusted:
                raise RunnerForged("the process, or a child of it, ran while it was stopped")

    def _settled(self) -> dict[int, int]:
        """What each process has run for, once every thread has come to a stop.

        One that is in the middle of a system call stops when that is done.
        """
        deadline = time.monotonic() + SETTLING_SECONDS
        seen: dict[int, int] | None = None
        while True:
            time.sleep(SETTLING_STEP_S)
            at_rest = is_stopped(self.pid) and self._processes.are_stopped()
            clocks = self._clocks_ns()
            # A thread says that it has stopped a moment before it gives its processor up, and a
            # virtual machine may be held up in that moment: its clock has to stand still as well.
            if (at_rest and clocks == seen) or time.monotonic() > deadline:
                return clocks
            seen = clocks if at_rest else None

    def _clocks_ns(self) -> dict[int, int]:
        """Processor time of all its threads, under 0, and of each descendant's, by its id."""
        clocks = self._processes.clocks_ns()
        # One that has ended is found out by the next request.
        with contextlib.suppress(OSError):
            clocks[0] = processor_ns(self.pid)
        return clocks

    def minor_faults(self) -> int:
        """Page faults so far that needed no disk, by the kernel; 0 where it does not tell."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return 0
        return int(stat.rpartition(")")[2].split()[MINOR_FAULTS_FIELD])

    def favour(self) -> None:
        """Have the kernel prefer it over other programs, where this user may ask for that."""
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{self.pid}/task"):  # noqa: PTH208
                os.setpriority(os.PRIO_PROCESS, int(task), FAVOURED)
            # Where the kernel shares out time by session, priorities count within one only.
            Path(f"/proc/{self.pid}/autogroup").write_text(str(FAVOURED))

    def waited_ns(self) -> int:
        """How long its threads have stood in line for a processor; 0 where none can say."""
        waited = 0
        # A thread may end while its figures are read.
        with contextlib.suppress(OSError, IndexError):
            for task in os.listdir(f"/proc/{self.pid}/task"):  # noqa: PTH208
                path = Path(f"/proc/{self.pid}/task/{task}/schedstat")
                waited += int(path.read_text().split()[1])
        return waited

    def log(self) -> str:
        """The end of what it printed."""
        size = os.fstat(self._holdings.log).st_size
        tail = os.pread(self._holdings.log, LOG_LIMIT, max(0, size - LOG_LIMIT))
        return tail.decode(errors="replace").strip()

    def bury_by(self, undertaker: Callable[[Callable[[], None]], object]) -> None:
        """Have what `close` must wait for done by somebody else, so that nobody waits for it."""
        self._bury = undertaker

    def close(self) -> None:
        """End the process with all its descendants and remove its folder; twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._signal(signal.SIGKILL)
        self._bury(self._end)

    def _end(self) -> None:
        deadline = time.monotonic() + END_SECONDS
        self.channel.unwatch()
        # Whatever is said, the other end closes once the monitor has seen every descendant end.
        with contextlib.suppress(ChannelClosed, ChannelTimeout):
            while True:
                with contextlib.suppress(ChannelGarbled):
                    self.channel.receive(max(0.0, deadline - time.monotonic()))
        # Where the candidate ended the monitor, nobody else does this.
        while not signal_all(self._processes, signal.SIGKILL) and time.monotonic() < deadline:
            pass
        self._processes.close()
        self.channel.close()
        os.close(self._pidfd)
        self._pidfd = -1
        self._holdings.release()

    def _signal(self, number: signal.Signals) -> None:
        # One that has ended is found out by the next request.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _last_words(self) -> str:
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        self.channel.unwatch()
        try:
            while time.monotonic() < deadline:
                message = self.channel.receive(LAST_WORDS_SECONDS)
                if "ended" in message:
                    return self._epitaph(str(message["ended"]))
        except (ChannelClosed, ChannelTimeout, ChannelGarbled):
            pass
        # The monitor says how, unless it ended too, which is no doing of the candidate's.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._zygote.wait(ZYGOTE_WORDS_SECONDS)
            raise ZygoteGone("the zygote ended, and its runners with it")
        return self._epitaph("no word of how")

    def _epitaph(self, how: str) -> str:
        log = self.log()
        said = f"\n{log}" if log else ""
        return f"the process ended in the middle of its work: {how[:200]}{said}"


def _grown(before: dict[int, int], after: dict[int, int]) -> int:
    """How much longer processes have run, those that are new counted whole."""
    return sum(max(0, ran - before.get(process, 0)) for process, ran in after.items())


def _text(told: object) -> str:
    """What a runner says, as text that can be written: half a character is none."""
    return str(told).encode(errors="replace").decode()


def _remove(folder: Path) -> None:
    """Remove a folder, whatever an untrusted program, which has ended, made of what is in it.

    Folders in folders are moved up one by one, since a tree may be deeper than a path is long.
    """
    moved = itertools.count()
    while folder.exists():
        for entry in list(os.scandir(folder)):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)  # noqa: PTH108
                continue
            # Without the right to enter its own folder a user can't empty it.
            os.chmod(entry.path, 0o700)  # noqa: PTH101
            for inner in list(os.scandir(entry.path)):
                if inner.is_dir(follow_symlinks=False):
                    os.chmod(inner.path, 0o700)  # noqa: PTH101
                    os.rename(inner.path, folder / f".{next(moved)}")  # noqa: PTH104
                else:
                    os.unlink(inner.path)  # noqa: PTH108
            os.rmdir(entry.path)  # noqa: PTH106
        with contextlib.suppress(OSError):
            folder.rmdir()


def _at_once(work: Callable[[], None]) -> None:
    work()
