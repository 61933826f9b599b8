"""The processes of one runner as the kernel lists them: to stop all, let them go on, or end them.

A candidate may fork. What it leaves running while its own process is stopped would work in the time
of others, so whatever is done to a runner is done to its descendants.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

# A stopped process forks no more, so each round that finds new ones brings the end nearer.
ROUNDS = 400
# States of a thread in /proc: stopped, traced, or on its way out.
STOPPED = (b"T", b"t", b"Z", b"X", b"x")


class OwnNamespace:
    """The other processes of a runner's own process namespace.

    Args:
        table: the namespace's /proc, opened before any untrusted code ran; owned from now on.
    """

    def __init__(self, table: int) -> None:
        self._table = table

    def others(self) -> set[int]:
        """Ids of all but the runner, which is number 1, in the namespace's own numbering."""
        # A namespace that has ended lists nothing.
        with contextlib.suppress(OSError):
            names = os.listdir(self._table)  # noqa: PTH208
            return {int(name) for name in names if name.isdigit()} - {1}
        return set()

    def signal(self, process: int, number: signal.Signals) -> None:
        """Send a signal; one that has ended is passed over."""
        with contextlib.suppress(OSError):
            # A folder of /proc stands for its process, as a pidfd does, in any numbering.
            folder = os.open(str(process), os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._table)
            try:
                signal.pidfd_send_signal(folder, number)
            finally:
                os.close(folder)

    def clocks_ns(self) -> dict[int, int]:
        """Processor time that each but the runner has taken so far."""
        return {process: _scheduled_ns(process, self._table) for process in self.others()}

    def are_stopped(self) -> bool:
        """Whether all but the runner have come to a stop."""
        return all(is_stopped(process, self._table) for process in self.others())

    def close(self) -> None:
        """Let go of the table."""
        os.close(self._table)


class Descendants:
    """A runner's descendants, where it has no namespace of its own.

    Those whose parent has ended are the monitor's children. Without /proc/PID/task/TID/children, or
    where the candidate ended the monitor, they are not found.
    """

    def __init__(self, runner: int) -> None:
        self._runner = runner
        self._monitor = _parent(runner)
        self._last_known_childless = ""

    def others(self) -> set[int]:
        """Ids of all but the runner."""
        newest = _newest_process()
        # Nothing at all was started on this machine since the last look.
        if newest and newest == self._last_known_childless:
            return set()
        found: set[int] = set()
        fresh = {self._runner} | (_children(self._monitor) if self._monitor else set())
        while fresh:
            found |= fresh
            fresh = {child for process in fresh for child in _children(process)} - found
        found.discard(self._runner)
        self._last_known_childless = "" if found else newest
        return found

    def signal(self, process: int, number: signal.Signals) -> None:
        """Send a signal; one that has ended is passed over."""
        with contextlib.suppress(OSError):
            os.kill(process, number)

    def clocks_ns(self) -> dict[int, int]:
        """Processor time that each but the runner has taken so far."""
        clocks: dict[int, int] = {}
        for process in self.others():
            # It may have ended.
            with contextlib.suppress(OSError):
                clocks[process] = processor_ns(process)
        return clocks

    def are_stopped(self) -> bool:
        """Whether all but the runner have come to a stop."""
        return all(is_stopped(process) for process in self.others())

    def close(self) -> None:
        """Nothing to let go of."""


def signal_all(processes: OwnNamespace | Descendants, number: signal.Signals) -> bool:
    """Signal every other process of a runner; True once a look finds none that is new.

    For a signal that ends processes, that is once none is left.
    """
    reached: set[int] = set()
    for _ in range(ROUNDS):
        found = processes.others()
        if not found - reached:
            return True
        for process in found:
            processes.signal(process, number)
        reached |= found
    return False


def is_stopped(process: int, table: int | None = None) -> bool:
    """Whether each thread of a process has stopped, or ended; `table` is the /proc that has it."""
    return all(
        stat.rpartition(b")")[2].split()[0] in STOPPED
        for stat in _of_threads(process, "stat", table)
    )


def processor_ns(process: int) -> int:
    """Processor time of all of a process's threads, those that have ended too.

    Raises:
        OSError: it has ended.
    """
    # As clock_getcpuclockid(3) makes a clock's id.
    return time.clock_gettime_ns((~process << 3) | 2)


def _scheduled_ns(process: int, table: int) -> int:
    """For how long a process's threads have run, by the scheduler."""
    return sum(int(told.split()[0]) for told in _of_threads(process, "schedstat", table))


def _of_threads(process: int, name: str, table: int | None) -> list[bytes]:
    """A file of each thread of a process; of those that end meanwhile, none."""
    found: list[bytes] = []
    home = f"/proc/{process}/task" if table is None else f"{process}/task"
    with contextlib.suppress(OSError):
        folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY, dir_fd=table)
        try:
            for task in os.listdir(folder):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    found.append(_read_in(f"{task}/{name}", folder))
        finally:
            os.close(folder)
    return found


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _children(process: int) -> set[int]:
    found: set[int] = set()
    # A process or thread may end while it is looked at.
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{process}/task"):  # noqa: PTH208
            found.update(map(int, _read(f"/proc/{process}/task/{task}/children").split()))
    return found


def _newest_process() -> str:
    """The id that was given last; "" where the kernel does not tell."""
    with contextlib.suppress(OSError, IndexError):
        return _read("/proc/loadavg").split()[-1]
    return ""


def _read(path: str) -> str:
    return _read_in(path, None).decode()


def _read_in(path: str, folder: int | None) -> bytes:
    descriptor = os.open(path, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)
