"""How a process is asked to end: by Ctrl-C, by SIGTERM, or by the terminal that was closed."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def endings() -> tuple[signal.Signals, ...]:
    """The signals that ask for an end; not SIGHUP where `nohup` has had it ignored."""
    asked = (signal.SIGINT, signal.SIGTERM)
    return asked if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*asked, signal.SIGHUP)


def terminals() -> tuple[int, ...]:
    """Those of the standard descriptors that are terminals."""
    return tuple(one for one in (0, 1, 2) if os.isatty(one))


def leave(were: Sequence[int]) -> None:
    """Have what goes to terminals that have been closed go nowhere, where else it would fail.

    Args:
        were: what `terminals` said before.
    """
    closed = [one for one in were if not os.isatty(one)]
    if not closed:
        return
    # It may be told of twice, by the kernel and by the shell.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Path(os.devnull).open("r+b", buffering=0) as nowhere:
        for one in closed:
            os.dup2(nowhere.fileno(), one)


def heed(asked: Sequence[signal.Signals], end: Callable[[], None]) -> dict[signal.Signals, Any]:
    """Have signals call `end`, of a closed terminal once nothing goes there; what they did before.

    Args:
        asked: of `endings`.
        end: runs in the main thread, between two of its instructions.
    """
    there = terminals()

    def stop(number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            leave(there)
        end()

    return {one: signal.signal(one, stop) for one in asked}


@contextmanager
def heeding(asked: Sequence[signal.Signals], end: Callable[[], None]) -> Iterator[None]:
    """As `heed`, within this block."""
    earlier = heed(asked, end)
    try:
        yield
    finally:
        for one, handler in earlier.items():
            # Of a terminal that was closed nothing more is heard.
            if signal.getsignal(one) is not signal.SIG_IGN:
                signal.signal(one, handler)
