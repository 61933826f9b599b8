"""The processor's own counters through `perf stat`: which to ask for, and what it prints.

Counting is switched on for the measured calls alone, so that imports and compilers don't count.
Virtual machines often hide the hardware's counters, and the system may keep all of them to
administrators: what is missing is said, never guessed.
"""

import re
import shutil
from pathlib import Path

EVENTS = ("cycles", "instructions", "cache-references", "cache-misses", "branch-misses",
          "dTLB-load-misses", "task-clock", "page-faults", "context-switches")  # fmt: skip
_NOTHING = ("<not supported>", "<not counted>")


def find_perf() -> str | None:
    """The command; None where it is not installed."""
    return shutil.which("perf")


def command_line(perf: str, table: Path, control: Path, answer: Path) -> list[str]:
    """The command up to the program it counts, which switches counting on and off by a pipe.

    Args:
        perf: the command.
        table: where its table goes.
        control: a named pipe that it reads `enable` and `disable` from.
        answer: a named pipe that it acknowledges them to.
    """
    # `:u` counts this program alone, which is what an unprivileged user may do.
    events = [name if name in _SOFTWARE else f"{name}:u" for name in EVENTS]
    return [perf, "stat", "-x,", "-o", str(table), "-D", "-1",
            f"--control=fifo:{control},{answer}", "-e", ",".join(events), "--"]  # fmt: skip


_SOFTWARE = ("task-clock", "page-faults", "context-switches")


def read_counters(text: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """What was counted, by event, and the events that this machine does not give.

    A line is value, unit, event, then how long it was counted, in which share of the time, and a
    derived figure. `task-clock` is in milliseconds.
    """
    counted: dict[str, float] = {}
    missing: list[str] = []
    for line in text.splitlines():
        cells = line.split(",")
        if line.startswith("#") or len(cells) < 3:
            continue
        event = cells[2].partition(":")[0]
        if cells[0] in _NOTHING:
            missing.append(event)
        elif re.fullmatch(r"\d+(\.\d+)?", cells[0]):
            counted[event] = float(cells[0])
    return counted, tuple(missing)


def refusal(told: str) -> str:
    """Why nothing was counted, from what the command printed."""
    if re.search(r"perf_event_paranoid|Access to performance monitoring|No permission", told):
        return "the system keeps its counters to administrators (perf_event_paranoid)"
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return f"perf stat failed: {lines[0][:200]}" if lines else "perf stat counted nothing"


def sentence(missing: tuple[str, ...]) -> str:
    """What to say of events that were not given; empty where all were."""
    return f"this machine does not give {', '.join(missing)}" if missing else ""
