"""The judge's hold on the processes it does not trust: the zygote, and the runners that it forks.

A runner that dies, hangs, raises or forges a reply becomes one exception each, which `gauntlet` and
`clock` turn into verdicts. No torch in here.
"""

import contextlib
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tools.runner.channel import (
    Channel,
    ChannelClosed,
    ChannelGarbled,
    ChannelTimeout,
    pair,
)
from tools.runner.jail import Jail, scrubbed_environment

START_SECONDS = 120.0
FORK_SECONDS = 30.0
LAST_WORDS_SECONDS = 1.0
LOG_LIMIT = 4000
FILE_SIZE_LIMIT = 256 << 20
MINOR_FAULTS_FIELD = 7
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
    """A reply that answers no question."""


RUNNER_FAILURES = (RunnerDied, RunnerLate, RunnerFailed, RunnerForged)


class Runner:
    """One runner, seen from the judge.

    `pid` is the kernel's word for it, so that faults and processor time can be read, and the
    process ended.
    """

    def __init__(
        self, channel: Channel, pid: int, folder: Path, log: int, in_force: list[str]
    ) -> None:
        self.channel = channel
        self.pid = pid
        self.folder = folder
        self.in_force = in_force
        self.first_call_done = False
        self._log = log
        self._pidfd = os.pidfd_open(pid)
        self._frozen = False
        channel.watch(self._pidfd)

    def ask(
        self, message: dict[str, Any], timeout_s: float, descriptors: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        """Send a request and wait for its reply.

        Raises:
            RunnerDied, RunnerLate, RunnerFailed, RunnerForged: see their classes.
        """
        return self.ask_timed(message, timeout_s, descriptors)[0]

    def ask_timed(
        self, message: dict[str, Any], timeout_s: float, descriptors: tuple[int, ...] = ()
    ) -> tuple[dict[str, Any], int]:
        """As `ask`, with the judge's own clock around it, in nanoseconds."""
        self.thaw()
        nonce = secrets.token_hex(8)
        message = {**message, "nonce": nonce}
        try:
            began = time.perf_counter_ns()
            self.channel.send(message, descriptors)
            reply = self.channel.receive(timeout_s)
            took = time.perf_counter_ns() - began
        except ChannelTimeout:
            raise RunnerLate(timeout_s) from None
        except ChannelClosed:
            raise RunnerDied(self._last_words()) from None
        except ChannelGarbled as error:
            raise RunnerForged(str(error)) from None
        if "ended" in reply:
            raise RunnerDied(self._epitaph(str(reply["ended"])))
        if reply.get("nonce") != nonce:
            raise RunnerForged("a reply came that answers no question of the judge's")
        if "failed" in reply:
            raise RunnerFailed(str(reply["failed"]), str(reply.get("log", ""))[-LOG_LIMIT:])
        return reply, took

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._pidfd < 0 or bool(select.select([self._pidfd], [], [], 0)[0])

    def freeze(self) -> None:
        """Stop the process, and so its spinning threads, until the next request."""
        if not self._frozen:
            self._signal(signal.SIGSTOP)
            self._frozen = True

    def thaw(self) -> None:
        """Let it run again."""
        if self._frozen:
            self._signal(signal.SIGCONT)
            self._frozen = False

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
            for task in os.scandir(f"/proc/{self.pid}/task"):
                os.setpriority(os.PRIO_PROCESS, int(task.name), FAVOURED)
            # Where the kernel shares out time by session, priorities count within one only.
            Path(f"/proc/{self.pid}/autogroup").write_text(str(FAVOURED))

    def waited_ns(self) -> int:
        """How long its threads have stood in line for a processor; 0 where none can say."""
        waited = 0
        # A thread may end while its figures are read.
        with contextlib.suppress(OSError, IndexError):
            for task in os.scandir(f"/proc/{self.pid}/task"):
                waited += int(Path(task.path, "schedstat").read_text().split()[1])
        return waited

    def log(self) -> str:
        """The end of what it printed."""
        size = os.fstat(self._log).st_size
        tail = os.pread(self._log, LOG_LIMIT, max(0, size - LOG_LIMIT))
        return tail.decode(errors="replace").strip()

    def close(self) -> None:
        """End the process with all its descendants and remove its folder; twice is fine."""
        if self._pidfd < 0:
            return
        self._signal(signal.SIGKILL)
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        try:
            # The monitor speaks last, after every descendant has ended.
            while "ended" not in self.channel.receive(max(0.0, deadline - time.monotonic())):
                pass
        except (ChannelClosed, ChannelTimeout, ChannelGarbled):
            pass
        self.channel.close()
        os.close(self._pidfd)
        os.close(self._log)
        self._pidfd = -1
        shutil.rmtree(self.folder, ignore_errors=True)

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
        return self._epitaph("no word of how")

    def _epitaph(self, how: str) -> str:
        log = self.log()
        said = f"\n{log}" if log else ""
        return f"the process ended in the middle of its work: {how[:200]}{said}"


class Zygote:
    """The zygote process, in its jail.

    Args:
        jail: what stands before its command.
        folder: scratch for all runners; the only place that they may write to.
        huge_pages: whether malloc asks for huge pages, in every runner alike.
    """

    def __init__(self, jail: Jail, folder: Path, huge_pages: bool) -> None:
        self.jail = jail
        self.folder = folder
        self.huge_pages = huge_pages
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._ready = False

    def start(self) -> None:
        """Start it, if it does not run; does not wait until it is ready."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        ours, theirs = pair()
        zygote = [sys.executable, "-m", "tools.runner.zygote", str(theirs.fileno())]
        with (self.folder / "zygote.log").open("wb") as log:
            self._process = subprocess.Popen(
                self.jail.command(zygote, [self.folder], []),
                pass_fds=[theirs.fileno()], env=scrubbed_environment(self.folder, self.huge_pages),
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        theirs.close()
        self._channel = Channel(ours)
        self._ready = False

    def fork(self, memory: int, environment: dict[str, str]) -> Runner:
        """A fresh runner in its own empty folder.

        Raises:
            ZygoteGone: it could not be had.
        """
        self.start()
        channel = self._channel
        assert channel is not None
        self._count += 1
        folder = self.folder / f"runner-{self._count}"
        folder.mkdir()
        log = os.open(self.folder / f"runner-{self._count}.log", os.O_CREAT | os.O_EXCL | os.O_RDWR)
        (self.folder / f"runner-{self._count}.log").unlink()
        ours, theirs = pair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        request = {
            "number": self._count, "folder": str(folder), "environment": environment,
            "limits": {
                "memory": memory, "processes": 256 + 4 * (os.cpu_count() or 1),
                "file_size": FILE_SIZE_LIMIT,
            },
        }  # fmt: skip
        try:
            if not self._ready:
                channel.receive(START_SECONDS)
                self._ready = True
            channel.send(request, (theirs.fileno(), log))
            theirs.close()
            runner_channel = Channel(ours)
            message, _, pid = runner_channel.receive_all(FORK_SECONDS)
        except (ChannelClosed, ChannelTimeout, ChannelGarbled) as error:
            theirs.close()
            ours.close()
            os.close(log)
            raise ZygoteGone(f"{type(error).__name__}: {error}\n{self._said()}") from error
        if pid is None or "in_force" not in message:
            raise ZygoteGone(f"the runner did not start: {message}\n{self._said()}")
        return Runner(runner_channel, pid, folder, log, message["in_force"])

    def _said(self) -> str:
        log = self.folder / "zygote.log"
        return log.read_text(errors="replace")[-LOG_LIMIT:] if log.exists() else ""

    def close(self) -> None:
        """End it with every runner; twice is fine."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            try:
                self._process.wait(LAST_WORDS_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
