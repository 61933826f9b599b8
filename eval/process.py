"""One problem's process: run within limits of time, memory and disk, and ended with all it started.

Whatever a reference or a kernel does in there, what comes back is a value.
"""

import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from knowledge.device import free_memory_bytes

Stop = Literal["timed_out", "out_of_memory", "flooded"]

GRACE_S = 30.0
POLL_S = 0.25
# Of so many looks at a problem, one adds up all that it takes.
LOOKS = 8
# Of a log, as much as its end is read, and kept.
LOG_BYTES = 1 << 20
# Of the memory that is free at the start; the rest is for the harness and its neighbours.
MEMORY_SHARE = 0.85
DISK_BYTES = 8 << 30
# PR_SET_CHILD_SUBREAPER and PR_GET_CHILD_SUBREAPER of prctl(2).
_SET_SUBREAPER, _GET_SUBREAPER = 36, 37


@dataclass(frozen=True)
class Limits:
    """What one problem may take: its processes together, in bytes of memory and of files."""

    memory_bytes: int | None = None
    disk_bytes: int = DISK_BYTES


class Ended(NamedTuple):
    """How a problem's process ended. `code` is None where it was stopped, `stopped` says why."""

    code: int | None
    output: str
    log: str
    seconds: float
    stopped: Stop | Literal[""] = ""


# Runs a command with a deadline in seconds, its standard error going to a file.
Execute = Callable[[list[str], float, Path], Ended]


def free_memory(held: int = 0) -> int:
    """Bytes that problems may take here, of what is free now, in a container's limits too.

    Args:
        held: bytes that some of these problems hold already.
    """
    return int(free_memory_bytes(held) * MEMORY_SHARE)


def execute(
    command: list[str], deadline_s: float, log: Path, limits: Limits | None = None
) -> Ended:
    """Run a command in a session of its own, and end whatever is left of it.

    Past a limit it is asked to stop, then killed. Where its folder is the log's, files that grow
    in there without end are seen. A process that runs problems side by side needs an `execute` in
    a process of its own for each, since all children that are new here count as this command's.
    """
    began = time.monotonic()
    with _adopting_orphans():
        code, stopped = _run(command, began + deadline_s, log, limits or Limits())
    printed = _printed(log)
    text = _end_of(printed)
    printed.unlink(missing_ok=True)
    said = _end_of(log)
    if log.stat().st_size > LOG_BYTES:
        log.write_text(said, encoding="utf-8")
    seconds = time.monotonic() - began
    return Ended(None if stopped else code, text, said, seconds, stopped)


def _printed(log: Path) -> Path:
    return log.with_name(f"{log.name}.out")


def _run(
    command: list[str], deadline: float, log: Path, limits: Limits
) -> tuple[int | None, Stop | Literal[""]]:
    earlier = set(psutil.Process().children(recursive=True))
    with log.open("wb") as errors, _printed(log).open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )
        _offer_to_the_oom_killer(process.pid)
        try:
            code, stopped = _wait(process, deadline, _Watch(limits, log.parent, earlier))
            if stopped:
                _stop(process, patient=stopped == "timed_out")
        except BaseException:
            _stop(process, patient=True)
            raise
        finally:
            _end_the_rest(earlier)
    return code, stopped


class _Watch:
    """Looks at what a problem's processes take; nearly free where nothing is near a limit.

    Args:
        limits: what they may take.
        folder: whose files are theirs.
        others: processes that are not the problem's; all other children of this one are.
    """

    def __init__(self, limits: Limits, folder: Path, others: set[psutil.Process]) -> None:
        self._limits = limits
        self._folder = folder
        self._others = others
        self._free = psutil.virtual_memory().available
        # What they could still take when they were last added up.
        self._left = limits.memory_bytes or 0
        self._looks = 0

    def complaint(self) -> Stop | Literal[""]:
        """The limit that is passed, if any is."""
        self._looks += 1
        in_full = self._looks % LOOKS == 0
        if self._holds_too_much(in_full=in_full):
            return "out_of_memory"
        if in_full and _bytes_under(self._folder) > self._limits.disk_bytes:
            return "flooded"
        return ""

    def _holds_too_much(self, *, in_full: bool) -> bool:
        most = self._limits.memory_bytes
        if most is None:
            return False
        # Reading one number disturbs no measurement. The processes are added up where somebody has
        # taken half of what they may still take; and now and then, since a neighbour may give back
        # what they take.
        free = psutil.virtual_memory().available
        if not in_full and self._free - free <= self._left // 2:
            return False
        held = held_by(set(psutil.Process().children(recursive=True)) - self._others, most)
        self._free, self._left = free, max(0, most - held)
        return held > most


def held_by(processes: Iterable[psutil.Process], enough: int = 0) -> int:
    """Bytes that nobody but these processes holds; what they share counts once.

    Args:
        processes: those that have ended are left out.
        enough: up to so many, an answer that is too high will do: it takes less time.
    """
    resident: dict[int, int] = {}
    own: dict[int, int] = {}
    for one in processes:
        with suppress(psutil.Error):
            info = one.memory_info()
            resident[one.pid] = info.rss
            own[one.pid] = info.rss - getattr(info, "shared", 0)
    rough = sum(resident.values())
    return rough if rough <= enough else sum(_share_of(*one) for one in own.items())


def _share_of(pid: int, own: int) -> int:
    """A process's share of memory that was written to; pages of files can be had back.

    Where the kernel keeps another user's to itself, `own`: then what it shares is left out.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return own
    shares = dict(line.split(":") for line in lines[1:])
    parts = [shares[name].split()[0] for name in ("Pss_Anon", "Pss_Shmem") if name in shares]
    return 1024 * sum(map(int, parts)) if parts else own


def _wait(
    process: subprocess.Popen[bytes], deadline: float, watch: _Watch
) -> tuple[int | None, Stop | Literal[""]]:
    with _end_of_process(process) as ended:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return None, "timed_out"
            ended(min(POLL_S, left))
            if (code := process.poll()) is not None:
                return code, ""
            if complaint := watch.complaint():
                return None, complaint


@contextmanager
def _end_of_process(process: subprocess.Popen[bytes]) -> Iterator[Callable[[float], object]]:
    """Waits so many seconds, or less where the process ends, and sleeps meanwhile.

    Popen's own wait with a timeout looks twenty times a second, beside something that is timed.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        yield time.sleep
        return
    try:
        yield lambda seconds: select.select([descriptor], [], [], seconds)
    finally:
        os.close(descriptor)


def _stop(process: subprocess.Popen[bytes], *, patient: bool) -> None:
    """Ask a process to stop and kill what is left of it; at once where there is no time."""
    if patient:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with suppress(psutil.NoSuchProcess):
        _kill(psutil.Process(process.pid).children(recursive=True))
    # The group lives on while any of its processes does, its leader or not.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_the_rest(earlier: set[psutil.Process]) -> None:
    """Kill what the command left behind: its orphans are ours, in whatever session they live."""
    for _ in range(20):
        left = set(psutil.Process().children(recursive=True)) - earlier
        if not left:
            return
        _kill(list(left))
        psutil.wait_procs(list(left), timeout=0.5)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Have a dead child's children become ours meanwhile; nothing but Linux can."""
    if sys.platform != "linux":
        yield
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    before = ctypes.c_int()
    prctl(_GET_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    prctl(_SET_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_SET_SUBREAPER, before.value, 0, 0, 0)


def _offer_to_the_oom_killer(pid: int) -> None:
    """Should memory run out before we see it, the problem goes and not the harness."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("800")
    with suppress(OSError, AttributeError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


def _bytes_under(folder: Path) -> int:
    total = 0
    waiting = [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def _end_of(path: Path) -> str:
    """The last of a file, which may be of any size."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_BYTES))
        return file.read().decode("utf-8", errors="replace")
