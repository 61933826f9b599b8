"""The judge's hold on the zygote, which forks a runner for whatever is to be run. No torch here.

The next runner is always asked for before anyone wants it, and the last one ended while the next
is at work: neither is waited for.
"""

import contextlib
import functools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.judge.peek import Witness
from tools.judge.reserve import UserIds
from tools.judge.runners import END_SECONDS, LOG_LIMIT, Holdings, Runner, Start, ZygoteGone
from tools.runner.channel import Channel, ChannelClosed, ChannelGarbled, ChannelTimeout, pair
from tools.runner.enclose import plan_cover
from tools.runner.jail import Jail, needed_paths, private_places, scrubbed_environment
from tools.runner.landlock import devices, outside

START_SECONDS = 120.0
FORK_SECONDS = 30.0
FILE_SIZE_LIMIT = 256 << 20


@functools.cache
def _plan_room(folder: Path, readable: tuple[Path, ...]) -> dict[str, list[str]]:
    """What runners below a folder see of the machine, as `confine.Room` has it."""
    keep = [*needed_paths(), *readable]
    covered, kept = plan_cover([*private_places(), folder], keep)
    fence = [*outside([*covered, folder]), *kept]
    plan = {"covered": covered, "kept": kept, "fence": fence, "devices": devices()}
    return {name: [str(path) for path in paths] for name, paths in plan.items()}


@dataclass(frozen=True)
class Coming:
    """A runner that was asked for and has not yet said that it is there."""

    channel: Channel
    holdings: Holdings
    process: subprocess.Popen[bytes]

    def arrive(self) -> Runner:
        """Wait for it.

        Raises:
            ChannelClosed, ChannelTimeout, ChannelGarbled: it does not come.
        """
        message, tables, pid = self.channel.receive_all(FORK_SECONDS)
        if pid is None or "in_force" not in message:
            raise ChannelGarbled(f"the runner did not start: {message}")
        table = tables[0] if tables else None
        readable = Witness(**message["witness"]).seen_in(pid)
        start = Start(pid, message["in_force"], table, readable)
        try:
            return Runner(self.channel, start, self.holdings, self.process)
        except ProcessLookupError as error:
            raise ChannelClosed("the runner ended as it started") from error

    def give_up(self) -> None:
        """Leave nothing of it."""
        self.channel.close()
        self.holdings.release()


class Zygote:
    """The zygote process, in its jail.

    Args:
        jail: what stands before its command.
        folder: scratch for all runners; the only place that they may write to.
        huge_pages: whether malloc asks for huge pages, in every runner alike.
        ahead: ask for runners beforehand, and end them when there is time.
    """

    def __init__(
        self, jail: Jail, folder: Path, huge_pages: bool = False, ahead: bool = True
    ) -> None:
        self.jail = jail
        self.folder = folder.resolve()
        self.huge_pages = huge_pages
        self.ahead = ahead
        self._users = UserIds()
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._ready = False
        self._spare: tuple[dict[str, Any], Coming | Runner] | None = None
        self._undertaker = ThreadPoolExecutor(1, "undertaker")
        self._burials: list[Future[None]] = []

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

    def fork(
        self, memory: int, environment: dict[str, str], readable: tuple[Path, ...] = ()
    ) -> Runner:
        """A fresh runner in its own empty folder.

        Args:
            memory: bytes that it may have.
            environment: variables besides the usual ones.
            readable: folders that it may look into although they are in somebody's home.

        Raises:
            ZygoteGone: it could not be had.
        """
        self.start()
        wanted = {"memory": memory, "environment": environment}
        runner = None if readable else self._take_spare(wanted)
        try:
            if runner is None:
                runner = _arrived(self._ask(memory, environment, readable))
            if self.ahead and not readable:
                self._spare = (wanted, self._ask(memory, environment, ()))
            if self.ahead:
                runner.bury_by(self._bury)
        except (ChannelClosed, ChannelTimeout, ChannelGarbled) as error:
            if runner is not None:
                runner.close()
            said = self._said()
            # What is left of it must not be asked again.
            self.close()
            raise ZygoteGone(f"{type(error).__name__}: {error}\n{said}") from error
        return runner

    def settle(self) -> None:
        """Wait until nothing is being started or ended here that a measurement would notice."""
        if self._spare is not None:
            wanted, coming = self._spare
            self._spare = None
            # One that does not come is asked for again when it is wanted.
            with contextlib.suppress(ChannelClosed, ChannelTimeout, ChannelGarbled):
                self._spare = (wanted, _arrived(coming))
        wait(self._burials)
        self._burials.clear()

    def _take_spare(self, wanted: dict[str, Any]) -> Runner | None:
        """The runner that was asked for beforehand, if it is there and such a one is wanted."""
        if self._spare is None:
            return None
        (given, spare), self._spare = self._spare, None
        if given != wanted:
            _discard(spare)
            return None
        try:
            runner = _arrived(spare)
        except (ChannelClosed, ChannelTimeout, ChannelGarbled):
            return None
        if runner.ended:
            runner.close()
            return None
        return runner

    def _ask(self, memory: int, environment: dict[str, str], readable: tuple[Path, ...]) -> Coming:
        """Ask for a runner, without waiting for it."""
        zygote, process = self._channel, self._process
        assert zygote is not None
        assert process is not None
        if not self._ready:
            zygote.receive(START_SECONDS)
            self._ready = True
        self._count += 1
        number, lent = self._count, self._users.lend()
        log = os.memfd_create("log", os.MFD_CLOEXEC)
        holdings = Holdings(self.folder / f"runner-{number}", log, lent[1] if lent else None)
        ours, theirs = pair()
        channel = Channel(ours)
        try:
            channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            (holdings.folder / "scratch").mkdir(parents=True)
            request = self._request(holdings.folder, memory, environment, readable)
            zygote.send({**request, "user": lent and lent[0]}, (theirs.fileno(), log))
        except BaseException:
            channel.close()
            holdings.release()
            raise
        finally:
            # Kept open here, it would hide that the runner's end was closed.
            theirs.close()
        return Coming(channel, holdings, process)

    def _request(
        self, folder: Path, memory: int, environment: dict[str, str], readable: tuple[Path, ...]
    ) -> dict[str, Any]:
        named = tuple(Path(value) for value in environment.values() if value.startswith("/"))
        return {
            "environment": environment, "namespaces": self.jail.namespaces,
            "room": {"folder": str(folder), **_plan_room(self.folder, (*readable, *named))},
            "limits": {
                "memory": memory, "processes": 256 + 4 * (os.cpu_count() or 1),
                "file_size": FILE_SIZE_LIMIT,
            },
        }  # fmt: skip

    def _bury(self, work: Callable[[], None]) -> None:
        self._burials = [burial for burial in self._burials if not burial.done()]
        self._burials.append(self._undertaker.submit(work))

    def _said(self) -> str:
        log = self.folder / "zygote.log"
        return log.read_text(errors="replace")[-LOG_LIMIT:] if log.exists() else ""

    def close(self) -> None:
        """End it with every runner; twice is fine."""
        if self._spare is not None:
            _discard(self._spare[1])
            self._spare = None
        wait(self._burials)
        self._burials.clear()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _arrived(spare: Coming | Runner) -> Runner:
    """A runner that is there.

    Raises:
        ChannelClosed, ChannelTimeout, ChannelGarbled: it does not come, and nothing is left of it.
    """
    if isinstance(spare, Runner):
        return spare
    try:
        return spare.arrive()
    except (ChannelClosed, ChannelTimeout, ChannelGarbled):
        spare.give_up()
        raise


def _discard(spare: Coming | Runner) -> None:
    with contextlib.suppress(ChannelClosed, ChannelTimeout, ChannelGarbled):
        _arrived(spare).close()
