"""What a judge holds of the machine, read from outside, and whether that grows.

Counts are read when nothing is being judged and must come back to what they were. Memory is read
all the time, and belongs to one process: what counts is how it grows within a process's life.
"""

import itertools
import math
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

SETTLE_SECONDS = 10.0
POLL_SECONDS = 0.02
# A process's first judgements load code and fill caches.
WARM_UP = 20
# Allocators and caches move memory about; a leak goes on.
MEMORY_SLACK_KIB = 512.0
SPREADS = 4.0
COUNTED = (
    "processes", "our descriptors", "judges' descriptors", "shared memory, KiB",
    "entries in the scratch folder", "compiled kernels", "mounts",
)  # fmt: skip
# The runner that stands by, and the one that is being taken down, may be there or not.
MOVING = {"judges' descriptors": 2}
COMPILED = "compiled kernels"
GROWS_BY_DESIGN = {COMPILED: "one for each that compiles, kept on purpose"}


def worker_of(scratch: Path) -> psutil.Process | None:
    """The judge's process that works in this folder."""
    return _first(psutil.Process().children(), ["tools.judge.service", str(scratch)])


def zygote_of(worker: psutil.Process) -> psutil.Process | None:
    """The zygote itself: neither the jail's own processes above it, nor the runners below it."""
    level = [worker]
    try:
        while level:
            level = [child for parent in level for child in parent.children()]
            if found := _first(level, ["tools.runner.zygote"]):
                return found
    except psutil.NoSuchProcess:
        pass
    return None


def _first(processes: Iterable[psutil.Process], module: list[str]) -> psutil.Process | None:
    """The first that is Python running a module with these arguments."""
    for process in processes:
        try:
            command = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if command[1:2] == ["-m"] and command[2 : 2 + len(module)] == module:
            return process
    return None


@dataclass(frozen=True)
class Memory:
    """Resident memory of one process after one judgement."""

    role: str
    pid: int
    number: int
    kib: int


def memory(number: int, role: str, process: psutil.Process | None) -> list[Memory]:
    """A reading, or none where the process is just gone."""
    try:
        if process is None:
            return []
        return [Memory(role, process.pid, number, process.memory_info().rss >> 10)]
    except psutil.NoSuchProcess:
        return []


def counts(scratches: Iterable[Path]) -> dict[str, int]:
    """Everything that can be counted, as it is now."""
    scratches = list(scratches)
    workers = [worker for scratch in scratches if (worker := worker_of(scratch))]
    below = [process.pid for process in psutil.Process().children(recursive=True)]
    files = [path for scratch in scratches for path in scratch.rglob("*")]
    compiled = [path for path in files if path.suffix == ".so" and path.parent.name == "compiled"]
    figures = (
        len(below), _descriptors(os.getpid()), sum(_descriptors(w.pid) for w in workers),
        sum(_memory_files(below).values()) >> 10, len(files) - len(compiled), len(compiled),
        sum(_mounts(pid) for pid in (os.getpid(), *below)),
    )  # fmt: skip
    return dict(zip(COUNTED, figures, strict=True))


def settled(scratches: Iterable[Path], before: dict[str, int] | None) -> dict[str, int]:
    """The counts once they are no more than `before`, or when waiting any longer is no use."""
    scratches = list(scratches)
    deadline = time.monotonic() + SETTLE_SECONDS
    found = counts(scratches)
    while before and _above(found, before) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        found = counts(scratches)
    return found


def _above(found: dict[str, int], before: dict[str, int]) -> bool:
    return any(_is_leak(name, found[name] - before[name]) for name in COUNTED)


def _is_leak(name: str, grown: int) -> bool:
    return name not in GROWS_BY_DESIGN and grown > MOVING.get(name, 0)


def _descriptors(pid: int) -> int:
    return len(_entries(f"/proc/{pid}/fd"))


def _mounts(pid: int) -> int:
    try:
        return len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
    except OSError:
        return 0


def _memory_files(pids: Iterable[int]) -> dict[int, int]:
    """Bytes of every memory file that these processes hold open or mapped, by inode."""
    held: dict[int, int] = {}
    for pid in pids:
        for entry in (*_entries(f"/proc/{pid}/fd"), *_entries(f"/proc/{pid}/map_files")):
            try:
                if entry.readlink().name.startswith("memfd:"):
                    status = entry.stat()
                    held[status.st_ino] = status.st_blocks * 512
            except OSError:
                continue
    return held


def _entries(folder: str) -> list[Path]:
    try:
        return list(Path(folder).iterdir())
    except OSError:
        return []


@dataclass(frozen=True)
class Resource:
    """One figure over a soak. A leak is growth beyond what is allowed."""

    name: str
    before: float
    peak: float
    after: float
    growth_per_candidate: float
    leak: bool
    note: str = ""


def judge_counts(checks: list[dict[str, int]], candidates: int) -> list[Resource]:
    """Counts must end where they began; what is kept on purpose is told, and no leak."""
    rows = []
    for name in COUNTED:
        values = [check[name] for check in checks]
        grown = values[-1] - values[0]
        note = GROWS_BY_DESIGN.get(name, "")
        rows.append(
            Resource(
                name, values[0], max(values), values[-1], grown / max(1, candidates),
                _is_leak(name, grown), note,
            )
        )  # fmt: skip
    return rows


def judge_memory(readings: list[Memory]) -> list[Resource]:
    """For each role, the growth of all its processes' lives taken together."""
    lives: dict[tuple[str, int], list[Memory]] = defaultdict(list)
    for reading in readings:
        lives[reading.role, reading.pid].append(reading)
    rows = []
    for role in dict.fromkeys(reading.role for reading in readings):
        own = [life for (whose, _), life in lives.items() if whose == role]
        rows.append(_judge_lives(role, own))
    return rows


def _judge_lives(role: str, lives: list[list[Memory]]) -> Resource:
    all_kib = [reading.kib for life in lives for reading in life]
    grown, judged, spread = 0.0, 0, 0.0
    for life in lives:
        settled_life = life[WARM_UP:]
        if len(settled_life) < 2 * WARM_UP:
            continue
        half = len(settled_life) // 2
        first = [reading.kib for reading in settled_life[:half]]
        last = [reading.kib for reading in settled_life[half:]]
        grown += statistics.median(last) - statistics.median(first)
        judged += half
        kib = [reading.kib for reading in settled_life]
        # Of neighbours, so that growth itself does not count as noise.
        steps = [abs(b - a) for a, b in itertools.pairwise(kib)]
        spread = max(spread, statistics.median(steps))
    name = f"{role} memory, KiB"
    if not judged:
        return Resource(name, all_kib[0], max(all_kib), all_kib[-1], 0.0, False, "too few to tell")
    allowed = max(MEMORY_SLACK_KIB, SPREADS * spread) * math.sqrt(max(1, len(lives)))
    note = f"{judged} judgements apart; noise {allowed / judged:.2f} KiB a candidate"
    leak = grown > allowed
    return Resource(name, all_kib[0], max(all_kib), all_kib[-1], grown / judged, leak, note)
